"""Build the pieces of the report's page: one HTML file, styles and pictures inside, nothing loaded from anywhere."""

import base64
import html
from collections.abc import Iterable, Sequence

STYLE = """
:root{--paper:#faf8f5;--card:#fff;--ink:#22201d;--soft:#6f6a63;--line:#e6e0d8;--blue:#3d6fa8;
--keep:#2f7d6b;--keep2:#d9ebe5;--drop:#c8553d;--drop2:#f6e1da;--warn:#8a5a00;--warn2:#fdf0d2}
@media (prefers-color-scheme:dark){:root{--paper:#191816;--card:#23211f;--ink:#ece7df;--soft:#a29b91;--line:#3a3733;
--blue:#86b1e2;
--keep:#5fb8a1;--keep2:#203d36;--drop:#e2836d;--drop2:#472a22;--warn:#efc468;--warn2:#453713}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:0 24px 64px}
h1{font-size:34px;letter-spacing:-.02em;line-height:1.15;margin:0}
h2{font-size:21px;letter-spacing:-.01em;margin:52px 0 4px}
h3{font-size:15px;margin:26px 0 8px}
p{margin:6px 0;max-width:76ch}
code{font:12.5px ui-monospace,Menlo,Consolas,monospace}
.soft{color:var(--soft)}.small{font-size:13px}.keep{color:var(--keep)}.drop{color:var(--drop)}
.mosaic{display:grid;gap:3px;margin:0 0 30px}
.mosaic img{width:100%;aspect-ratio:1;object-fit:cover;display:block}
.figures{display:flex;flex-wrap:wrap;gap:10px 44px;margin:22px 0 6px}
.figures b{display:block;font-size:32px;line-height:1.15;letter-spacing:-.02em}
.figures span{color:var(--soft);font-size:13px}
.chip{display:inline-block;border-radius:99px;padding:1px 9px;font-size:12px;background:var(--line);color:var(--ink);
white-space:nowrap}
.chip.keep{background:var(--keep2);color:var(--keep)}
.chip.drop{background:var(--drop2);color:var(--drop)}
.chip.warn{background:var(--warn2);color:var(--warn)}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px 18px;margin:12px 0}
.chips{line-height:2.1}
.funnel{display:grid;grid-template-columns:210px 1fr 100px;gap:9px 16px;align-items:center}
.track{height:26px;border-radius:6px;display:flex;overflow:hidden}
.track i{display:block;height:100%}
.track .on{background:var(--keep)}
.track .off{background:repeating-linear-gradient(135deg,var(--drop),var(--drop) 3px,var(--drop2) 3px,var(--drop2) 7px)}
.num{text-align:right;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{font-weight:600;font-size:12px;color:var(--soft);text-align:left}
th,td{padding:7px 10px;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}
td.num,th.num{text-align:right}
.meter{display:inline-block;width:110px;height:8px;border-radius:4px;background:var(--line);margin-right:8px;overflow:hidden}
.meter i{display:block;height:100%;background:var(--blue)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(156px,1fr));gap:14px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;overflow:hidden}
figure.survivor{outline:2px solid var(--keep)}
figure .pic{height:150px;background:#fff;display:flex;align-items:center;justify-content:center;
border-bottom:1px solid var(--line)}
figure img{max-width:100%;max-height:150px;display:block}
figcaption{padding:9px 11px;font-size:12.5px;line-height:1.4;overflow-wrap:anywhere}
.words{display:-webkit-box;-webkit-line-clamp:4;-webkit-box-orient:vertical;overflow:hidden}
.scores{color:var(--soft);font-size:11.5px;margin-top:6px}
.scores span{display:flex;justify-content:space-between}
.scores b{color:var(--ink);font-weight:600}
.reason{display:grid;grid-template-columns:190px 1fr;gap:6px 20px;padding:14px 0;border-bottom:1px solid var(--line)}
.reason:last-child{border:0}
.thumbs{display:flex;gap:10px;flex-wrap:wrap;align-items:flex-start}
.thumbs figure{width:132px}
.thumbs figure .pic{height:96px}
.thumbs img{max-height:96px}
.list{margin:0;padding:0;list-style:none;font-size:13px}
.list li{overflow-wrap:anywhere;margin:0 0 3px;line-height:1.35}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(440px,1fr));gap:18px 24px}
.pairs .reason{grid-template-columns:150px 1fr;padding:4px 0;border:0}
.wide{width:100%;border-radius:8px;border:1px solid var(--line);background:#fff}
footer{margin-top:56px;border-top:1px solid var(--line);padding-top:14px;color:var(--soft);font-size:13px;
white-space:pre-line}
@media (max-width:720px){.funnel,.reason,.pairs{grid-template-columns:1fr}.num{text-align:left}}
"""


def esc(text: object) -> str:
    """Return text that is safe inside HTML, attributes included: captions and URLs come from strangers."""
    return html.escape(str(text), quote=True)


def count(number: int) -> str:
    """Return a whole number with thin spaces between thousands."""
    return f"{number:,}".replace(",", "\u2009")


def image(data: bytes, words: str = "", style: str = "") -> str:
    """Return an `img` element that holds its own PNG or JPEG bytes."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    with_class = f' class="{style}"' if style else ""
    return f'<img{with_class} alt="{esc(words)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def chip(text: str, tone: str = "") -> str:
    """Return a small label; tones: keep, drop, warn."""
    return f'<span class="chip {tone}">{esc(text)}</span>'


def meter(share: float | None) -> str:
    """Return a share of 1 as a short bar and a percentage; a dash where it is undefined."""
    if share is None:
        return '<span class="soft">—</span>'
    return f'<span class="meter"><i style="width:{100 * share:.1f}%"></i></span>{share:.0%}'


def funnel_row(name: str, left: int, lost: int, whole: int) -> str:
    """Return one step of the funnel: what is left, hatched what the step took, of the whole."""
    on, off = (100 * part / max(whole, 1) for part in (left, lost))
    took = f' <span class="drop">&minus;{count(lost)}</span>' if lost else ""
    bars = f'<i class="on" style="width:{on:.2f}%"></i><i class="off" style="width:{off:.2f}%"></i>'
    return f'<div>{esc(name)}</div><div class="track">{bars}</div><div class="num"><b>{count(left)}</b>{took}</div>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: frozenset[int] = frozenset()) -> str:
    """Return a table; cells are HTML already, columns in `numbers` stand right."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=num' if place in numbers else ''}>{cell}</{tag}>" for place, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{cells([esc(head) for head in heads], 'th')}</tr>{body}</table>"


def curve(points: Sequence[tuple[float, float]], x_name: str = "step", y_name: str = "loss") -> str:
    """Return a line of (x, y) points as inline SVG with a light grid and its end value."""
    width, height, left, bottom = 1000, 280, 46, 30
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min([*ys, 0.0]), max(ys) * 1.04 or 1.0
    span_x, span_y = (max(xs) - min(xs)) or 1.0, (high - low) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (x - min(xs)) / span_x * (width - left - 70), (height - bottom) * (1 - (y - low) / span_y)

    grid = ""
    for part in range(5):
        y = low + span_y * part / 4
        grid += (
            f'<line x1="{left}" x2="{width - 60}" y1="{place(xs[0], y)[1]:.1f}" y2="{place(xs[0], y)[1]:.1f}"'
            ' stroke="var(--line)"/>'
        )
        grid += f'<text x="{left - 8}" y="{place(xs[0], y)[1] + 4:.1f}" text-anchor="end">{y:.1f}</text>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    end_x, end_y = place(*points[-1])
    return (
        f'<svg viewBox="0 -8 {width} {height + 8}" width="100%" role="img" font-size="12" fill="var(--soft)"'
        f' font-family="system-ui">{grid}<polyline points="{path}" fill="none" stroke="var(--keep)" stroke-width="2.5"'
        f' stroke-linejoin="round"/><circle cx="{end_x:.1f}" cy="{end_y:.1f}" r="4" fill="var(--keep)"/><text'
        f' x="{end_x + 10:.1f}" y="{end_y + 4:.1f}" fill="var(--ink)" font-weight="600">{ys[-1]:.2f}</text><text'
        f' x="{(left + width) / 2}" y="{height - 6}" text-anchor="middle">{esc(x_name)} {min(xs):.0f} to'
        f' {max(xs):.0f}</text><text x="{left}" y="2" text-anchor="start">{esc(y_name)}</text></svg>'
    )


def page(title: str, body: str) -> str:
    """Return the whole document."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,'
        f' initial-scale=1"><title>{esc(title)}</title>'
    )
    return (
        "<!DOCTYPE html>\n<html"
        f' lang="en"><head>{head}<style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n'
    )
