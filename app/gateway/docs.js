"use strict";
// Sends the requests of the documentation's forms to this very host, and shows what comes back.
for (const form of document.querySelectorAll("form[data-path]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const query = new URLSearchParams();
    const headers = {};
    let path = form.dataset.path;
    for (const field of form.querySelectorAll("input")) {
      const { name, in: place } = field.dataset;
      if (place === "path") path = path.replace(`{${name}}`, encodeURIComponent(field.value));
      else if (field.value && place === "query") query.set(name, field.value);
      else if (field.value) headers[name] = field.value;
      else if (name === "Idempotency-Key") headers[name] = field.value = `docs-${Date.now()}-${Math.random()}`;
    }
    const key = document.getElementById("key").value;
    if (key) headers.Authorization = `Bearer ${key}`;
    const body = form.querySelector("textarea")?.value || undefined;
    if (body) headers["Content-Type"] = "application/json";
    const shown = form.querySelector("pre.answer");
    shown.hidden = false;
    try {
      const url = query.size ? `${path}?${query}` : path;
      const answer = await fetch(url, { method: form.dataset.method, headers, body });
      const text = await answer.text();
      let pretty = text;
      try { pretty = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON: as it is */ }
      const lines = [...answer.headers].map(([name, value]) => `${name}: ${value}`);
      shown.textContent = `${answer.status}\n${lines.join("\n")}\n\n${pretty}`;
    } catch (error) {
      shown.textContent = String(error);
    }
  });
}
