// The arithmetic of "Will it pay for me?"; tests compare it with the page's table.
function guidedShare(v) {
  const price = { prompt: v.input / 1e6, completion: v.output / 1e6 };
  // What one prompt token costs, of the list price: a prefix that is too short is not cached.
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

// The first field whose value makes no sense, as a sentence. Empty if all do.
function complaint(form) {
  for (const field of form.querySelectorAll("input")) {
    const { badInput, rangeOverflow, rangeUnderflow, stepMismatch } = field.validity;
    if (field.value && !badInput && !rangeOverflow && !rangeUnderflow && !stepMismatch) continue;
    const number = field.step === "any" ? "number" : "whole number";
    const range = field.max ? `from ${field.min} to ${field.max}` : `of ${field.min} or more`;
    return `${field.parentElement.textContent.trim()}: give a ${number} ${range}.`;
  }
  return Number(form.elements.input.value) + Number(form.elements.output.value) > 0
    ? ""
    : "Give an input price or an output price above 0.";
}

function saving(share) {
  const percent = Math.abs((1 - share) * 100).toFixed(1) + "%";
  return share > 1 ? `You pay ${percent} more` : `You save ${percent}`;
}

function showShare(form) {
  const output = form.querySelector("output");
  const wrong = complaint(form);
  if (wrong) {
    output.textContent = wrong;
    return;
  }
  const v = readFields(form);
  const found = guidedShare(v);
  const usd = (x) => "$" + (x * 1000).toFixed(4);
  const said = [
    `${saving(found.share)}: 1,000 guided calls cost ${usd(found.guided)}, and the teacher alone ` +
      `${usd(found.alone)}, billed in the same way.`,
    `The prompt alone is ${(found.floor * 100).toFixed(1)}% of that, which guidance cannot save.`,
  ];
  if (found.alone < found.naive) {
    said.push(
      `Without any student, the cache and the tier save ${((1 - found.alone / found.naive) * 100).toFixed(1)}% ` +
        `of the list price, which is ${usd(found.naive)}.`,
    );
  }
  if (v.input > 0) said.push(`An output token costs ${(v.output / v.input).toFixed(1)} times an input token.`);
  if (found.tooShort) said.push("What the guided teacher is shown is too short for the cache.");
  output.textContent = said.join(" ");
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
