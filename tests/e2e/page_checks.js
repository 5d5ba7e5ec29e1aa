// What Lighthouse and axe would complain about, of what the page uses: contrast, names, targets, structure.
() => {
  const problems = [];
  const visible = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0 && !element.closest(".visually-hidden, .skip");
  const describe = (element) => `${element.tagName.toLowerCase()}${element.id ? "#" + element.id : ""}${[...element.classList].map((name) => "." + name).join("")} "${element.textContent.trim().slice(0, 30)}"`;
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((value) => { const c = value / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ratio = (a, b) => { const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x); return (high + 0.05) / (low + 0.05); };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = numbers(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
      if (a > 0) problems.push(`half transparent ground: ${describe(at)}`);
    }
    return [255, 255, 255];
  };

  // Contrast: 4.5 for text, 3 for large text (WCAG 1.4.3) and for the edges of controls (1.4.11).
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !visible(element) || element.closest(":disabled, script, noscript, option")) continue;
    texts += 1;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const found = ratio(numbers(style.color), ground(element));
    if (found < (large ? 3 : 4.5)) problems.push(`contrast ${found.toFixed(2)}: ${describe(element)}`);
  }
  if (texts < 3) problems.push(`only ${texts} texts were seen`);
  for (const element of document.querySelectorAll("select, input:not([type=range], [type=checkbox]), button:not(.plain, [data-key] *)")) {
    if (!visible(element) || element.disabled || element.querySelector("img")) continue;
    const found = ratio(numbers(getComputedStyle(element).borderTopColor), ground(element.parentElement));
    const fill = ratio(ground(element), ground(element.parentElement));
    if (Math.max(found, fill) < 3) problems.push(`edge ${found.toFixed(2)}: ${describe(element)}`);
  }

  // Names, targets, order.
  const name = (element) => {
    const by = element.getAttribute("aria-labelledby");
    if (element.getAttribute("aria-label")) return element.getAttribute("aria-label");
    if (by) return by.split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" ").trim();
    if (element.labels?.length) return [...element.labels].map((label) => label.textContent).join(" ").trim();
    return element.textContent.trim() || element.getAttribute("alt") || "";
  };
  for (const element of document.querySelectorAll("button, a[href], input, select, [role=slider], [role=img], [role=group], [role=region], section, dialog, table")) {
    if (!visible(element)) continue;
    const named = element.tagName === "TABLE" ? element.caption?.textContent : name(element);
    if (!named) problems.push(`no name: ${describe(element)}`);
  }
  for (const element of document.querySelectorAll("button, a[href], input, select, [role=slider]")) {
    if (!visible(element)) continue;
    const target = element.type === "checkbox" ? element.closest("label") : element;
    const { width, height } = target.getBoundingClientRect();
    if (height < 43.5 || width < 24) problems.push(`target of ${Math.round(width)} x ${Math.round(height)}: ${describe(element)}`);
  }
  for (const element of document.querySelectorAll("[tabindex]")) if (element.tabIndex > 0) problems.push(`tabindex: ${describe(element)}`);
  for (const element of document.querySelectorAll("img")) if (!element.hasAttribute("alt")) problems.push(`no alt: ${describe(element)}`);
  for (const element of document.querySelectorAll("[aria-describedby], [aria-labelledby]")) {
    for (const attribute of ["aria-describedby", "aria-labelledby"]) {
      for (const id of (element.getAttribute(attribute) ?? "").split(" ").filter(Boolean)) if (!document.getElementById(id)) problems.push(`no such id: ${id}`);
    }
  }

  // The page.
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) problems.push(`id twice: ${id}`);
  if (document.documentElement.lang !== "en") problems.push("no language");
  if (!document.title) problems.push("no title");
  if (document.querySelectorAll("h1").length !== 1) problems.push("not one h1");
  if (document.querySelectorAll("main").length !== 1) problems.push("not one main");
  let level = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) problems.push(`heading: ${describe(heading)}`);
    level = next;
  }
  if (document.documentElement.scrollWidth > document.documentElement.clientWidth) problems.push(`wider than the screen: ${document.documentElement.scrollWidth}`);
  return problems;
}
