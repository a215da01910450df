// The page "Try this assistant": runs the chosen checks, one after the other.
(function () {
  "use strict";

  const page = document.getElementById("try-assistant");
  if (!page) return;
  const button = page.querySelector("button");
  const said = page.querySelector("[data-said]");

  async function run(check) {
    const result = check.querySelector(".ta-result");
    result.textContent = gettext("Asking the model…");
    const answer = await fetch(check.dataset.check, {
      method: "POST",
      headers: { "X-CSRFToken": page.dataset.token },
      credentials: "same-origin",
    });
    if (answer.status === 429) {
      result.textContent = await answer.text();
      return false;
    }
    if (!answer.ok) {
      result.textContent = interpolate(gettext("The check could not run (%(status)s). Reload the page and try again."), { status: answer.status }, true);
      return false;
    }
    result.innerHTML = await answer.text(); // our own page's part, escaped by the server
    return !result.querySelector(".ta-failed");
  }

  async function runAll() {
    const chosen = [...page.querySelectorAll("[data-check]")].filter((check) => check.querySelector("input").checked);
    let failed = 0;
    button.disabled = true;
    page.querySelectorAll(".ta-result").forEach((result) => (result.textContent = ""));
    for (const [number, check] of chosen.entries()) {
      said.textContent = interpolate(gettext("%(number)s of %(all)s…"), { number: number + 1, all: chosen.length }, true);
      try {
        failed += (await run(check)) ? 0 : 1;
      } catch (error) {
        failed += 1;
        check.querySelector(".ta-result").textContent = gettext("The connection broke off. Try again.");
      }
    }
    said.textContent = chosen.length === 0 ? gettext("Choose a check.") : failed ? interpolate(ngettext("%(count)s failed.", "%(count)s failed.", failed), { count: failed }, true) : gettext("All passed.");
    button.disabled = false;
  }

  button.type = "button";
  button.addEventListener("click", runAll);
})();
