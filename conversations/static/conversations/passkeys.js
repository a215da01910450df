// The button of a form that a passkey fills in: data-passkey is "create" or "get", and #js_data has the server's options.
(() => {
  const data = document.getElementById("js_data");
  const button = document.querySelector("[data-passkey]");
  if (!data || !button) return;

  const { form } = button;
  const problem = form.querySelector("[data-passkey-problem]");
  const NOT_HERE = gettext("This browser cannot use passkeys on this page. Use another browser, or another second factor.");
  const NOT_DONE = gettext("The passkey was not used. Try again, or use another second factor.");

  function say(sentence) {
    problem.textContent = sentence;
    problem.hidden = !sentence;
  }

  async function credential() {
    const { creation_options: creation, request_options: request } = JSON.parse(data.textContent);
    if (button.dataset.passkey === "create") {
      const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(creation.publicKey);
      return navigator.credentials.create({ publicKey });
    }
    return navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(request.publicKey) });
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    say("");
    if (!window.PublicKeyCredential?.parseCreationOptionsFromJSON || !navigator.credentials) return say(NOT_HERE);
    button.disabled = true;
    try {
      form.elements.credential.value = JSON.stringify((await credential()).toJSON());
      form.submit(); // asks for no second submit event
    } catch {
      say(NOT_DONE);
      button.disabled = false;
    }
  });
})();
