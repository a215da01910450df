// The progress page of a bulk action: runs one batch after the other while the page is open.
(function () {
  "use strict";

  const job = document.getElementById("bulk-job");
  if (!job) return;
  const bar = job.querySelector("progress");
  const said = job.querySelector("[data-said]");
  const again = job.querySelector("button");

  async function batch() {
    const answer = await fetch(job.dataset.goOn, {
      method: "POST",
      headers: { "X-CSRFToken": job.dataset.token, Accept: "application/json" },
      credentials: "same-origin",
    });
    if (!answer.ok) throw new Error(String(answer.status));
    const now = await answer.json();
    bar.value = now.handled;
    ["handled", "changed", "refused"].forEach((name) => {
      job.querySelector(`[data-${name}]`).textContent = now[name];
    });
    return now.ended;
  }

  async function run() {
    again.hidden = true;
    said.textContent = gettext("Keep this page open.");
    try {
      while (!(await batch()));
      said.textContent = gettext("Finished.");
    } catch (error) {
      said.textContent = gettext("The job stopped. What is done stays done.");
      again.hidden = false;
    }
  }

  again.addEventListener("click", run);
  if (job.dataset.ended !== "yes") run();
})();
