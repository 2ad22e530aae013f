// Runs before the first paint, so that the page never flashes in the wrong colours. Not a module for that reason.
(function () {
  let kept = null;
  try { kept = localStorage.getItem("xas-agent-colours"); } catch { /* storage is switched off */ }
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
})();
