"""Two kinds of plot as SVG text, without any library: a dot for each run of a setting with their mean, and lines over
steps with a dot for each run."""

import math

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 34, 46
COLOURS = ["#1f6f8b", "#d1495b", "#66a182", "#8d6a9f", "#edae49"]


def ticks(low, high, wanted=5):
    """Round numbers that span low..high."""
    span = max(high - low, 1e-9) / wanted
    step = 10 ** math.floor(math.log10(span))
    step *= next(times for times in (1, 2, 5, 10) if times * step >= span)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low, high):
    """1, 2 and 5 times powers of ten, from the last below to the first above."""
    all_ticks = [times * 10.0**power for power in range(-6, 7) for times in (1, 2, 5)]
    first = max(index for index, tick in enumerate(all_ticks) if tick <= low)
    last = min(index for index, tick in enumerate(all_ticks) if tick >= high)
    return all_ticks[first:last + 1]


class Plot:
    def __init__(self, title, y_label, values, log=False):
        self.y_ticks = log_ticks(min(values), max(values)) if log else ticks(min(0, *values), max(values))
        self.scale = math.log if log else float
        self.parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
                      'font-family="sans-serif" font-size="12" fill="#333">',
                      f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
        self.text(WIDTH / 2, 18, title, size=14)
        for tick in self.y_ticks:
            self.parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{self.y(tick):.1f}" y2="{self.y(tick):.1f}" '
                              'stroke="#ddd"/>')
            self.text(LEFT - 6, self.y(tick) + 4, f"{tick:g}", anchor="end")
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self.parts.append(f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
                          f'{y_label}</text>')

    def y(self, value):
        low, high = self.scale(self.y_ticks[0]), self.scale(self.y_ticks[-1])
        return HEIGHT - BOTTOM - (self.scale(value) - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    def text(self, x, y, text, anchor="middle", size=12, colour="#333"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">'
                          f'{text}</text>')

    def dot(self, x, value, colour):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{self.y(value):.1f}" r="3.5" fill="{colour}" fill-opacity="0.7"/>')

    def finish(self):
        return "\n".join([*self.parts, "</svg>", ""])


def dots(title, y_label, settings):
    """settings: name -> one value a run."""
    plot = Plot(title, y_label, [value for values in settings.values() for value in values])
    share = (WIDTH - LEFT - RIGHT) / len(settings)
    for index, (name, values) in enumerate(settings.items()):
        centre = LEFT + (index + 0.5) * share
        mean = plot.y(sum(values) / len(values))
        plot.parts.append(f'<line x1="{centre - 18:.1f}" x2="{centre + 18:.1f}" y1="{mean:.1f}" y2="{mean:.1f}" '
                          f'stroke="{COLOURS[0]}" stroke-width="2"/>')
        for number, value in enumerate(values):
            plot.dot(centre + 9 * (number - (len(values) - 1) / 2), value, COLOURS[0])
        plot.text(centre, HEIGHT - BOTTOM + 20, name)
    return plot.finish()


def lines(title, x_label, y_label, curves):
    """curves: name -> {x -> one value a run}; x from nothing on a linear axis, y on a logarithmic one."""
    plot = Plot(title, y_label, [value for curve in curves.values() for values in curve.values() for value in values],
                log=True)
    x_ticks = ticks(0, max(x for curve in curves.values() for x in curve))
    at = lambda x: LEFT + x / x_ticks[-1] * (WIDTH - LEFT - RIGHT)
    for tick in x_ticks:
        plot.text(at(tick), HEIGHT - BOTTOM + 16, f"{tick:g}")
    plot.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_label)
    for index, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        means = [(at(x), plot.y(sum(values) / len(values))) for x, values in sorted(curve.items())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in means)
        plot.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, values in curve.items():
            for value in values:
                plot.dot(at(x), value, colour)
        plot.text(WIDTH - RIGHT - 4, TOP + 14 + 16 * index, name, anchor="end", colour=colour)
    return plot.finish()
