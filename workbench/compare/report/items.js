// The page's only script: the browser of items, the copy buttons, which tables are wider than the
// page, and what printing opens. Every text of a run reaches
// the page through textContent, so nothing in it can become markup.
"use strict";
(() => {
  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };

  // --- commands ------------------------------------------------------------------------------------------------------
  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.previousElementSibling;
      getSelection().selectAllChildren(code); // the fallback: what is selected can be copied by hand
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  // --- wide tables ---------------------------------------------------------------------------------------------------
  const sizes = new ResizeObserver((seen) => {
    for (const { target } of seen) target.classList.toggle("wider", target.scrollWidth > target.clientWidth + 1);
  });
  for (const box of document.querySelectorAll(".scroll")) sizes.observe(box);

  // --- paper ---------------------------------------------------------------------------------------------------------
  let opened = [];
  matchMedia("print").addEventListener("change", (event) => {
    if (event.matches) opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = event.matches;
  });

  // --- items ---------------------------------------------------------------------------------------------------------
  const source = document.getElementById("item-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const PAGE = 25;
  const LONG = 420;
  const control = (id) => document.getElementById(id);
  const [task, armA, armB, kind, filter] = ["task", "arm-a", "arm-b", "kind", "filter"].map(control);
  const body = document.querySelector("#item-table tbody");
  const headers = [...document.querySelectorAll("#item-table th[data-sort]")];
  let sort = { key: "difference", falling: true };
  let limit = PAGE;

  const options = (select, pairs) => select.replaceChildren(...pairs.map(([value, text]) => {
    const option = make("option", text);
    option.value = value;
    return option;
  }));
  const value = (item, arm) => item.answers[arm]?.value ?? null;
  const facts = () => data.tasks.find((one) => one.id === task.value);
  const ofTask = () => data.items.filter((item) => item.task === task.value);
  const isBinary = () => ofTask().every((item) => Object.values(item.answers).every((one) => [0, 1, null].includes(one.value)));

  const KINDS = {
    all: ["all items", () => true],
    a: ["only A right", (a, b) => a === 1 && b === 0],
    b: ["only B right", (a, b) => a === 0 && b === 1],
    both: ["both right", (a, b) => a === 1 && b === 1],
    neither: ["neither right", (a, b) => a === 0 && b === 0],
    "a-better": ["A better", (a, b) => a !== null && b !== null && (facts().higher ? a > b : a < b)],
    "b-better": ["B better", (a, b) => a !== null && b !== null && (facts().higher ? b > a : b < a)],
  };
  const chooseTask = () => {
    const names = isBinary() ? ["all", "a", "b", "both", "neither"] : ["all", "a-better", "b-better"];
    options(kind, names.map((name) => [name, KINDS[name][0]]));
  };

  const number = (one) => {
    if (one === null) return "–";
    const text = Number.isInteger(one) ? String(one) : one.toFixed(3);
    return text.replace("-", "−");
  };
  const key = (item) => {
    const [a, b] = [value(item, armA.value), value(item, armB.value)];
    if (sort.key === "id") return item.id;
    if (sort.key === "a") return a;
    if (sort.key === "b") return b;
    return a === null || b === null ? null : Math.abs(a - b); // the largest disagreement, whoever it favours
  };
  const compare = (one, other) => {
    const [first, second] = [key(one), key(other)];
    if (first === null || second === null) return (first === null) - (second === null); // the unknown come last
    const order = typeof first === "string" ? first.localeCompare(second, "en", { numeric: true }) : first - second;
    return sort.falling ? -order : order;
  };
  const chosen = () => {
    const needle = filter.value.trim().toLowerCase();
    const holds = (text) => String(text ?? "").toLowerCase().includes(needle);
    return ofTask()
      .filter((item) => KINDS[kind.value][1](value(item, armA.value), value(item, armB.value)))
      .filter((item) => !needle || holds(item.id) || holds(item.text) || holds(item.expected)
        || [armA.value, armB.value].some((arm) => holds(item.answers[arm]?.answer)))
      .sort(compare);
  };

  const longText = (text, className) => {
    const whole = String(text ?? "");
    const element = make("div", whole.length > LONG ? `${whole.slice(0, LONG)}…` : whole, className);
    if (whole.length > LONG) {
      const button = make("button", "whole text", "whole");
      button.type = "button";
      button.addEventListener("click", () => { element.textContent = whole; });
      element.append(" ", button);
    }
    return element;
  };
  const answer = (item, arm, binary) => {
    const cell = make("td", undefined, "answer");
    cell.dataset.label = arm;
    const found = item.answers[arm];
    if (!found) {
      cell.append(make("span", "not scored", "quiet"));
      return cell;
    }
    if (binary && found.value !== null) {
      const right = found.value === 1;
      cell.append(make("span", right ? "✓ right" : "✗ wrong", right ? "right" : "wrong"));
    } else cell.append(make("span", number(found.value), "value"));
    if (found.state && found.state !== "ok") cell.append(" ", make("span", found.state, "chip"));
    if (found.answer !== null && found.answer !== undefined) cell.append(longText(found.answer, "text"));
    return cell;
  };
  const row = (item, binary) => {
    const line = make("tr");
    const name = make("th");
    name.scope = "row";
    name.append(make("code", item.id), longText(item.text, "text"));
    const expected = make("td");
    expected.dataset.label = "Expected";
    expected.append(longText(item.expected ?? "–", "text"));
    const [a, b] = [value(item, armA.value), value(item, armB.value)];
    const difference = make("td", number(a === null || b === null ? null : a - b), "number");
    difference.dataset.label = "A − B";
    line.append(name, expected, answer(item, armA.value, binary), answer(item, armB.value, binary), difference);
    return line;
  };

  const draw = () => {
    const [rows, binary] = [chosen(), isBinary()];
    body.replaceChildren(...rows.slice(0, limit).map((item) => row(item, binary)));
    control("more").hidden = rows.length <= limit;
    const counted = `${Math.min(limit, rows.length).toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
    control("shown").textContent = rows.length
      ? `${counted} items that fit, ${ofTask().length.toLocaleString("en")} in all.` : "No item fits.";
    for (const header of headers) {
      const own = header.dataset.sort === sort.key;
      header.setAttribute("aria-sort", own ? (sort.falling ? "descending" : "ascending") : "none");
    }
    headers.find((one) => one.dataset.sort === "a").firstElementChild.textContent = armA.value;
    headers.find((one) => one.dataset.sort === "b").firstElementChild.textContent = armB.value;
  };
  const again = () => { limit = PAGE; draw(); };

  options(task, data.tasks.map((one) => [one.id, one.id]));
  document.querySelector("[data-for=task]").hidden = data.tasks.length < 2;
  for (const select of [armA, armB]) options(select, data.arms.map((name) => [name, name]));
  armB.selectedIndex = Math.min(1, data.arms.length - 1);
  chooseTask();
  task.addEventListener("change", () => { chooseTask(); again(); });
  for (const select of [armA, armB, kind]) select.addEventListener("change", again);
  filter.addEventListener("input", again);
  for (const header of headers) {
    header.firstElementChild.addEventListener("click", () => {
      const name = header.dataset.sort;
      sort = { key: name, falling: sort.key === name ? !sort.falling : name !== "id" };
      again();
    });
  }
  control("more").addEventListener("click", () => { limit += PAGE; draw(); });
  control("browser").hidden = false;
  draw();
})();
