// Names for screen readers that ipywidgets and JupyterLab leave out: sliders, boxes and pictures get those that stand
// beside them on the page. It looks again whenever the page changes, and runs once a page.
window.peftEduNames ??= (() => {
  const shown = ".jp-OutputArea-output ";
  const textBehind = (picture, room) =>
    [...room.querySelectorAll(".peft-edu-alt")].find(
      (text) => picture.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING
    ) ?? room.querySelector(".peft-edu-alt");
  const name = () => {
    waits = false;
    for (const handle of document.querySelectorAll(shown + ".noUi-handle:not([aria-label])")) {
      const row = handle.closest(".widget-inline-hbox, .widget-inline-vbox");
      const label = row?.querySelector(".widget-label")?.textContent || row?.title;
      if (label) handle.setAttribute("aria-label", label);
    }
    for (const box of document.querySelectorAll(shown + ":is(input, select, textarea):not([aria-label])")) {
      const label = box.closest(".widget-inline-hbox")?.querySelector(".widget-label"); // its tooltip stands there
      const title = box.title || label?.title || box.placeholder;
      const named = [...(box.labels ?? [])].some((each) => each.textContent.trim());
      if (!named && title) box.setAttribute("aria-label", title);
    }
    for (const picture of document.querySelectorAll(shown + "img")) {
      const card = picture.closest(".peft-edu-card") ?? picture.closest(".jp-OutputArea");
      const curve = picture.classList.contains("peft-edu-curve");
      const alt = curve ? "The loss, step by step" : textBehind(picture, card)?.textContent;
      if (alt && picture.alt !== alt) picture.alt = alt;
    }
  };
  let waits = false;
  const later = () => {
    if (!waits) waits = Boolean(requestAnimationFrame(name));
  };
  new MutationObserver(later).observe(document.body, { childList: true, subtree: true, characterData: true });
  later();
  return true;
})();
