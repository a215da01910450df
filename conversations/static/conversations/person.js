// The form of a person: in the inbox's pane and on the contact's page. What was typed is never lost to an answer.
(function () {
  "use strict";

  function link(address, label) {
    return Object.assign(document.createElement("a"), { href: address, textContent: label });
  }

  // Show why it was not saved; where a colleague was faster, the next save is on top of what they wrote.
  function refuse(form, body, status) {
    const told = form.querySelector(".pn-told");
    const line = document.createElement("p");
    line.textContent = body.said || `${status}`;
    told.replaceChildren(line);
    if (body.merge) line.append(" ", link(body.merge, body.merge_label));
    else if (body.other) line.append(" ", link(body.other, body.merge_label));
    if (body.now) {
      const before = JSON.parse(form.elements.before.value);
      form.elements.before.value = JSON.stringify({ ...before, ...body.now });
    }
    told.hidden = false;
    told.scrollIntoView({ block: "nearest" });
  }

  function settled(form) {
    form.querySelectorAll("input").forEach((input) => { input.defaultValue = input.value; });
    form.querySelectorAll("option").forEach((option) => { option.defaultSelected = option.selected; });
    form.querySelector(".pn-told").hidden = true;
    document.activeElement?.blur();
    form.closest("details").open = false;
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches?.("form[data-person]")) return;
    event.preventDefault();
    if (form.dataset.busy) return;
    form.dataset.busy = "yes";
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        body: new FormData(form),
        headers: { Accept: "application/json" },
        credentials: "same-origin",
      });
      const isJson = (answer.headers.get("Content-Type") || "").includes("json");
      const body = isJson ? await answer.json() : {};
      if (!answer.ok || !isJson) {
        refuse(form, body, answer.status);
        return;
      }
      settled(form);
      if (document.getElementById("inbox")) form.dispatchEvent(new CustomEvent("convo:saved", { bubbles: true, detail: body.said }));
      else window.location.reload();
    } catch (error) {
      refuse(form, { said: form.dataset.lost }, "");
    } finally {
      delete form.dataset.busy;
    }
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-add-row]");
    if (!button) return;
    const rows = button.parentElement.querySelectorAll(".pn-row");
    const row = rows[rows.length - 1].cloneNode(true);
    row.querySelectorAll("input").forEach((input) => { input.value = ""; });
    button.before(row);
    row.querySelector("input").focus();
  });
})();
