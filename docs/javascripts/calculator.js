// The arithmetic of "Will it pay for me?"; tests compare it with the page's table.
function guidedShare(v) {
  const price = { prompt: v.input / 1e6, completion: v.output / 1e6 };
  const read = (1 - v.cached) + v.cached * v.discount;
  const alone = v.prompt * read * price.prompt + v.answer * price.completion;
  const shown = v.prompt * v.shown * read * price.prompt;
  const guided = shown + Math.min(v.guidance, v.answer) * price.completion;
  return { alone, guided, share: guided / alone, floor: shown / alone };
}

function showShare(form) {
  const v = {};
  for (const field of form.querySelectorAll("input")) {
    v[field.name] = Number(field.value) / (field.dataset.percent ? 100 : 1);
  }
  const found = guidedShare(v);
  const usd = (x) => "$" + (x * 1000).toFixed(4);
  form.querySelector("output").textContent = Number.isFinite(found.share)
    ? `1,000 calls: ${usd(found.guided)} guided, ${usd(found.alone)} by the teacher alone: ` +
      `${(found.share * 100).toFixed(1)}% of its bill. The prompt alone is ` +
      `${(found.floor * 100).toFixed(1)}%: no guidance is cheaper than that.`
    : "Give numbers above zero.";
}

function startCalculator() {
  for (const form of document.querySelectorAll("form.calculator")) {
    form.addEventListener("input", () => showShare(form));
    showShare(form);
  }
}

if (typeof document !== "undefined") {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startCalculator);
  else startCalculator();
}
