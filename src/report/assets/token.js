// Asks for the token of the status page and has the server make a cookie of it. The token goes in a header: neither an
// address nor a body of a request ever holds it.

function askForToken() {
  const said = el('p', { role: 'alert', class: 'leak' });
  // Without a name it is part of no form that is sent.
  const field = /** @type {HTMLInputElement} */ (
    el('input', {
      id: 'token',
      type: 'password',
      autocomplete: 'current-password',
      required: true,
      autofocus: true,
      spellcheck: 'false',
    })
  );

  /** @param {Event} event */
  async function submit(event) {
    event.preventDefault();
    said.textContent = '';
    try {
      const response = await fetch('', {
        method: 'POST',
        headers: { authorization: `Bearer ${field.value.trim()}` },
      });
      if (response.ok) {
        location.reload();
        return;
      }
      said.textContent = response.status === 401 ? 'That is not the token.' : 'No answer.';
    } catch {
      said.textContent = 'That cannot be the token, or the app does not answer.';
    }
    field.select();
  }

  const form = el(
    'form',
    { class: 'token card', onsubmit: submit },
    // For password managers, which keep a name with each secret.
    el('input', { type: 'text', autocomplete: 'username', value: 'leakguard', hidden: true }),
    el('label', { for: 'token' }, 'Token'),
    el('div', { class: 'tools' }, field, el('button', { class: 'quiet' }, 'Show status')),
    said,
    el('p', { class: 'soft small' }, 'The value of LEAKGUARD_TOKEN in the environment of the app.'),
  );
  document
    .getElementById('page')
    ?.append(el('main', null, el('p', { class: 'brand' }, el('b', null, 'leakguard')), form));
}

askForToken();
