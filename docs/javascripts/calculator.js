// The arithmetic of "Will it pay for me?"; tests compare it with the page's table.
function guidedShare(v) {
  const price = { prompt: v.input / 1e6, completion: v.output / 1e6 };
  // What one prompt token costs, of the list price: a front that is too short is not cached.
  const read = (tokens) =>
    tokens * v.cached < v.minimum ? 1 : 1 - v.cached + v.cached * (v.hits * v.discount + (1 - v.hits) * v.write);
  const call = (prompt, completion) =>
    v.batch * (prompt * read(prompt) * price.prompt + completion * price.completion);
  const alone = call(v.prompt, v.answer);
  const guided = call(v.prompt * v.shown, Math.min(v.guidance, v.answer));
  const naive = v.prompt * price.prompt + v.answer * price.completion;
  return {
    alone,
    guided,
    naive,
    share: guided / alone,
    floor: call(v.prompt * v.shown, 0) / alone,
    tooShort: v.cached > 0 && v.prompt * v.shown * v.cached < v.minimum,
  };
}

function readFields(form) {
  const v = {};
  for (const field of form.querySelectorAll("input")) {
    v[field.name] = Number(field.value) / (field.dataset.percent ? 100 : 1);
  }
  return v;
}

function showShare(form) {
  const v = readFields(form);
  const found = guidedShare(v);
  const usd = (x) => "$" + (x * 1000).toFixed(4);
  const percent = (x) => (x * 100).toFixed(1) + "%";
  const short = found.tooShort ? " What the guided teacher is shown is too short for the cache." : "";
  form.querySelector("output").textContent = Number.isFinite(found.share)
    ? `1,000 calls: ${usd(found.guided)} guided, ${usd(found.alone)} by the teacher alone, asked the ` +
      `same way: ${percent(found.share)} of its bill. The prompt alone is ${percent(found.floor)}: no ` +
      `guidance is cheaper than that. The naive bill, nothing cached, no batch: ${usd(found.naive)}; ` +
      `the teacher alone is ${percent(found.alone / found.naive)} of it with no student at all. ` +
      `Output costs ${(v.output / v.input).toFixed(1)} times input.${short}`
    : "Give numbers above zero.";
}

function takePreset(form) {
  const chosen = form.querySelector("select").selectedOptions[0];
  for (const [name, value] of Object.entries(chosen.dataset)) {
    form.querySelector(`input[name="${name}"]`).value = value;
  }
}

function startCalculator() {
  for (const form of document.querySelectorAll("form.calculator")) {
    form.addEventListener("input", (event) => {
      if (event.target.tagName === "SELECT") takePreset(form);
      showShare(form);
    });
    showShare(form);
  }
}

if (typeof document !== "undefined") {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startCalculator);
  else startCalculator();
}
