/* Accessibility that unfold lacks: a main landmark, and a menu button that works with a keyboard. */
document.addEventListener("DOMContentLoaded", () => {
    // The server shows times in the browser's zone, unless the person has chosen another one.
    const zone = `convo_zone=${Intl.DateTimeFormat().resolvedOptions().timeZone}`;
    if (!document.cookie.split("; ").includes(zone)) document.cookie = `${zone}; path=/; max-age=31536000; samesite=lax`;
    document.getElementById("main")?.setAttribute("role", "main");
    for (const toggle of document.querySelectorAll("#main span.material-symbols-outlined[x-on\\:click*=sidebar]")) {
        Object.assign(toggle, { role: "button", tabIndex: 0, ariaLabel: gettext("Menu") });
        toggle.addEventListener("keydown", (event) => {
            if (event.key !== "Enter" && event.key !== " ") return;
            event.preventDefault();
            toggle.click();
        });
    }
});
