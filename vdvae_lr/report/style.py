"""How a report looks: on a phone and a wide screen, by day and by night, and on paper.

The colours of runs are Okabe and Ito's, which people with any colour vision can tell apart; charts name them by these
variables, so that one drawing serves both themes.
"""

_LIGHT = """
color-scheme: light;
--paper: #ffffff; --card: #f7f8fa; --ink: #1a1d21; --muted: #59616b; --grid: #dfe3e8; --stripe: #eceff3;
--link: #0b57a8; --notice: #fff6df; --notice-edge: #b97a00;
--run-0: #0072b2; --run-1: #d55e00; --run-2: #00805d; --run-3: #b0508a;
"""
_DARK = """
color-scheme: dark;
--paper: #121418; --card: #1b1e24; --ink: #e7eaee; --muted: #a2abb6; --grid: #343a43; --stripe: #242830;
--link: #7cc0ff; --notice: #2c2614; --notice-edge: #d9a520;
--run-0: #56b4e9; --run-1: #f0883e; --run-2: #2fc79a; --run-3: #e59cc6;
"""
STYLE = f"""
:root {{{_LIGHT}}}
@media (prefers-color-scheme: dark) {{ :root {{{_DARK}}} }}
@media print {{ :root {{{_LIGHT}}} }}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; }}
body {{ margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5; overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }}
main {{ max-width: 1320px; margin: 0 auto; padding: 16px; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }}
h2 {{ font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--grid); }}
h3 {{ font-size: 1.02rem; margin: 1.4rem 0 .4rem; }}
p {{ max-width: 75ch; margin: .5rem 0; }}
.muted, figcaption, footer {{ color: var(--muted); font-size: .875rem; }}
a {{ color: var(--link); }}
code {{ font-family: ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .9em; }}
nav ul {{ display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; margin: .6rem 0; list-style: none; }}
ul.legend {{ display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .5rem 0; list-style: none;
  font-size: .9rem; }}
.legend li {{ display: flex; align-items: center; gap: .4rem; }}
.legend svg {{ width: 40px; height: 14px; flex: none; }}
ul.notices {{ margin: .8rem 0; padding: .6rem .8rem .6rem 1.8rem; background: var(--notice);
  border-left: 4px solid var(--notice-edge); border-radius: 4px; font-size: .9rem; }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 350px), 1fr)); gap: 16px;
  align-items: start; margin: .6rem 0; }}
.pictures {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 16px;
  align-items: start; margin: .6rem 0; }}
figure {{ margin: 0; padding: 10px; min-width: 0; background: var(--card); border: 1px solid var(--grid);
  border-radius: 8px; break-inside: avoid; }}
figure > h3 {{ margin: 0 0 .2rem; font-size: .95rem; }}
figure img {{ display: block; max-width: 100%; height: auto; margin: .3rem 0; border-radius: 3px; }}
svg.chart {{ display: block; width: 100%; height: auto; }}
svg.chart text {{ font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }}
svg.chart * {{ stroke-linejoin: round; }}
.scroll {{ overflow-x: auto; max-width: 100%; margin: .5rem 0; border: 1px solid var(--grid); border-radius: 6px; }}
.scroll.tall {{ max-height: 24rem; overflow-y: auto; }}
table {{ border-collapse: collapse; font-size: .875rem; width: 100%; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }}
th, td {{ padding: .3rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--grid); }}
tbody tr:last-child > * {{ border-bottom: 0; }}
thead th, thead td {{ background: var(--stripe); max-width: 16rem; overflow-wrap: anywhere; min-width: 6rem; }}
tbody th {{ font-weight: 500; background: var(--paper); }}
tbody th, thead tr > :first-child {{ position: sticky; left: 0; max-width: 45vw; min-width: min(11rem, 38vw); }}
table.numbers td {{ white-space: nowrap; }}
table.words td {{ max-width: 24rem; min-width: 8rem; overflow-wrap: anywhere; }}
th small, td small {{ display: block; color: var(--muted); font-weight: 400; }}
details {{ margin: .5rem 0; }}
summary {{ cursor: pointer; font-size: .9rem; color: var(--link); }}
figure tbody th {{ background: var(--card); }}
figure details {{ margin: .2rem 0 0; }}
footer {{ margin-top: 2.5rem; padding-top: .6rem; border-top: 1px solid var(--grid); }}
@media print {{
  body {{ font-size: 11px; }}
  nav {{ display: none; }}
  h2 {{ break-after: avoid; }}
  .scroll, .scroll.tall {{ overflow: visible; max-height: none; }}
  .charts {{ grid-template-columns: repeat(2, 1fr); }}
}}
"""
