/* Accessibility that unfold lacks: a main landmark, and a menu button that works with a keyboard. */
document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("main")?.setAttribute("role", "main");
    for (const toggle of document.querySelectorAll("#main span.material-symbols-outlined[x-on\\:click*=sidebar]")) {
        Object.assign(toggle, { role: "button", tabIndex: 0, ariaLabel: "Menu" });
        toggle.addEventListener("keydown", (event) => {
            if (event.key !== "Enter" && event.key !== " ") return;
            event.preventDefault();
            toggle.click();
        });
    }
});
