"""The page that a report is shown in: style and frame, without scripts and without anything from outside."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{title}}</title>
<style>
:root {
  color-scheme: light dark;
  --ink: #1d2126; --soft: #5b636d; --paper: #ffffff; --line: #dfe3e8; --stripe: #f6f7f9; --accent: #1f5fa8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e3e6ea; --soft: #9aa3ae; --paper: #15181c; --line: #343a42; --stripe: #1c2025; --accent: #82b4ea;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif;
}
.page { max-width: 78rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
main { min-width: 0; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.4rem; line-height: 1.3; margin: 3rem 0 .75rem; padding-top: .75rem; }
h2 { border-top: 1px solid var(--line); }
h3 { font-size: 1.13rem; margin: 2.2rem 0 .5rem; }
h4, h5, h6 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
h2 span, h3 span, h4 span, h5 span, h6 span, nav span { color: var(--soft); font-weight: 400; margin-right: .3em; }
p, ul, ol, blockquote { max-width: 46rem; }
p, ul, ol { margin: .6rem 0; }
blockquote { margin: .8rem 0; padding-left: 1rem; border-left: 3px solid var(--line); color: var(--soft); }
a { color: var(--accent); }
code { font: .88em/1.4 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: .75rem; background: var(--stripe); border-radius: 6px; }
figure { margin: 1.4rem 0; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 46rem; margin: .4rem 0; }
.wide { overflow-x: auto; border-radius: 6px; }
img { display: block; max-width: 100%; height: auto; background: #fff; }
figure:not(.table) > .wide { background: #fff; padding: .5rem; border: 1px solid var(--line); }
table { border-collapse: collapse; font-size: .88rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .75rem; text-align: left; vertical-align: top; white-space: nowrap; }
td.long { white-space: normal; min-width: 16rem; max-width: 30rem; overflow-wrap: anywhere; }
th { border-bottom: 2px solid var(--line); font-weight: 600; vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); }
tbody tr:nth-child(even) { background: var(--stripe); }
.n { text-align: right; }
nav { font-size: .9rem; line-height: 1.4; margin: 1rem 0 2rem; }
nav h2 { all: unset; display: block; font-weight: 600; margin-bottom: .4rem; }
nav ul { list-style: none; margin: 0; padding: 0; }
nav li { margin: .28rem 0; }
nav .l2 { padding-left: 1.1rem; }
nav a { color: inherit; text-decoration: none; }
nav a:hover { color: var(--accent); text-decoration: underline; }
@media (min-width: 1080px) {
  .page { display: grid; grid-template-columns: 15rem minmax(0, 1fr); gap: 2.5rem; }
  nav { position: sticky; top: 1rem; align-self: start; max-height: calc(100vh - 2rem); overflow-y: auto; margin: 0; }
}
@media print {
  :root { --ink: #000; --soft: #444; --paper: #fff; --line: #bbb; --stripe: #fff; --accent: #000; }
  body { font-size: 10pt; }
  .page { display: block; max-width: none; padding: 0; }
  nav { position: static; max-height: none; }
  .wide { overflow: visible; }
  img { min-width: 0 !important; }
  table { font-size: 8pt; }
  th, td { padding: .15rem .4rem; }
  figure:not(.table), tr { break-inside: avoid; }
  h2, h3, h4, figcaption { break-after: avoid; }
}
</style>
</head>
<body>
<div class="page">
<nav aria-label="Contents"><h2>Contents</h2><ul>
{{contents}}
</ul></nav>
<main>
<h1>{{title}}</h1>
{{lead}}
{{body}}
</main>
</div>
</body>
</html>
"""
