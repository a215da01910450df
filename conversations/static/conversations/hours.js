// The rows of business hours and holidays in a client's form: adding, removing, copying.
(function () {
  "use strict";

  function add(box, template, values = []) {
    const made = template.content.firstElementChild.cloneNode(true);
    made.querySelectorAll("input").forEach((field, number) => { field.value = values[number] || ""; });
    box.append(made);
    const closed = box.querySelector(".bh-closed");
    if (closed) box.append(closed);
    return made;
  }

  // Remove the row. The focus goes to the button that adds another one.
  function remove(row, adds) {
    row.remove();
    adds.focus();
  }

  function spansOf(day) {
    return Array.from(day.querySelectorAll(".bh-spans > .bh-span"), (span) => Array.from(span.querySelectorAll("input"), (field) => field.value));
  }

  function copy(day, week) {
    const spans = spansOf(day);
    week.querySelectorAll(".bh-day").forEach((other) => {
      if (other === day || Number(other.dataset.day) > 4) return;
      other.querySelectorAll(".bh-spans > .bh-span").forEach((span) => span.remove());
      spans.forEach((values) => add(other.querySelector(".bh-spans"), other.querySelector("template"), values));
    });
    const said = week.querySelector("[data-said]");
    said.textContent = day.querySelector("[data-copy]").title;
    setTimeout(() => { said.textContent = ""; }, 4000);
  }

  function inWeek(button, day) {
    const box = day.querySelector(".bh-spans");
    if (button.matches("[data-remove]")) remove(button.closest(".bh-span"), day.querySelector("[data-add]"));
    else if (button.matches("[data-copy]")) copy(day, day.closest("[data-week]"));
    else if (box.querySelectorAll(":scope > .bh-span").length < Number(day.closest("[data-week]").dataset.most)) {
      const isFirst = !spansOf(day).length;
      add(box, day.querySelector("template"), isFirst ? ["9:00", "17:00"] : []).querySelector("input").focus();
    }
  }

  function inHolidays(button, holidays) {
    const box = holidays.querySelector(".bh-rows");
    if (button.matches("[data-remove]")) remove(button.closest(".bh-holiday"), holidays.querySelector("[data-add]"));
    else add(box, holidays.querySelector("template")).querySelector("input").focus();
  }

  // The script is in the page's head: the rows come later.
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".bh button");
    const day = button?.closest(".bh-day");
    const holidays = button?.closest("[data-holidays]");
    if (day) inWeek(button, day);
    else if (holidays) inHolidays(button, holidays);
  });
})();
