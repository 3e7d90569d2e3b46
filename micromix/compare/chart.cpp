#include "micromix/compare/chart.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include <fmt/format.h>

namespace micromix {
namespace {

constexpr double kWidth = 860;
constexpr double kHeight = 440;
constexpr double kLeft = 64, kRight = 24, kTop = 16, kBottom = 48;

// From data to the picture.
struct Axes {
  double x_low, x_high;  // linear
  double y_low, y_high;  // log10

  double x(double value) const {
    return kLeft + (value - x_low) / (x_high - x_low) * (kWidth - kLeft - kRight);
  }
  double y(double value) const {
    const double share = (std::log10(value) - y_low) / (y_high - y_low);
    return kHeight - kBottom - share * (kHeight - kTop - kBottom);
  }
};

Axes fit_axes(const std::vector<Series>& series) {
  const double infinity = std::numeric_limits<double>::infinity();
  Axes axes{infinity, -infinity, infinity, -infinity};
  for (const Series& each : series) {
    for (const auto& [x, y] : each.points) {
      axes.x_low = std::min(axes.x_low, x);
      axes.x_high = std::max(axes.x_high, x);
      axes.y_low = std::min(axes.y_low, std::log10(y));
      axes.y_high = std::max(axes.y_high, std::log10(y));
    }
  }
  // Some room around the points, and at least half a bit and a fifth of a decade of it.
  const double x_room = std::max(0.25, 0.04 * (axes.x_high - axes.x_low));
  const double y_room = std::max(0.1, 0.06 * (axes.y_high - axes.y_low));
  return {axes.x_low - x_room, axes.x_high + x_room, axes.y_low - y_room, axes.y_high + y_room};
}

std::string grid_line(double x1, double y1, double x2, double y2) {
  return fmt::format(
      "<line class=\"grid\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", x1, y1,
      x2, y2);
}

std::string label(double x, double y, const char* anchor, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     escape_xml(text));
}

void draw_axes(const Axes& axes, const std::string& x_label, const std::string& y_label,
               std::string& svg) {
  const double bottom = kHeight - kBottom;
  const double step = axes.x_high - axes.x_low > 3 ? 0.5 : 0.25;
  for (double x = std::ceil(axes.x_low / step) * step; x <= axes.x_high; x += step) {
    svg += grid_line(axes.x(x), kTop, axes.x(x), bottom);
    svg += label(axes.x(x), bottom + 18, "middle", fmt::format("{:g}", x));
  }
  for (int decade = static_cast<int>(std::floor(axes.y_low)); decade <= axes.y_high; ++decade) {
    for (int digit : {1, 2, 5}) {
      const double y = digit * std::pow(10.0, decade);
      if (std::log10(y) < axes.y_low || std::log10(y) > axes.y_high) continue;
      svg += grid_line(kLeft, axes.y(y), kWidth - kRight, axes.y(y));
      svg += label(kLeft - 8, axes.y(y) + 4, "end", fmt::format("{:g}", y));
    }
  }
  svg += label((kLeft + kWidth - kRight) / 2, kHeight - 8, "middle", x_label);
  svg += fmt::format(
      "<text transform=\"translate(14 {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
      (kTop + bottom) / 2, escape_xml(y_label));
}

void draw_series(const Axes& axes, const Series& series, size_t index, std::string& svg) {
  svg += fmt::format("<g class=\"c{}\">\n", index % 12);
  if (series.points.size() > 1) {
    std::string points;
    for (const auto& [x, y] : series.points) {
      points += fmt::format("{:.1f},{:.1f} ", axes.x(x), axes.y(y));
    }
    svg += fmt::format("<polyline points=\"{}\"/>\n", points);
  }
  for (const auto& [x, y] : series.points) {
    svg += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\"><title>{}: {:.4g} at {:.3f} "
        "bits</title></circle>\n",
        axes.x(x), axes.y(y), escape_xml(series.name), y, x);
  }
  svg += "</g>\n";
}

struct Label {
  double x, y;
  std::string text;
};

// Names beside the last points, moved apart where they would cover each other.
void draw_names(const Axes& axes, const std::vector<Series>& series, std::string& svg) {
  constexpr double kLineHeight = 14, kCharacter = 7;
  std::vector<Label> labels;
  for (const Series& each : series) {
    const auto& [x, y] = each.points.back();
    labels.push_back({axes.x(x), axes.y(y) + 4, each.name});
  }
  std::ranges::sort(labels, {}, &Label::y);
  for (size_t i = 0; i < labels.size(); ++i) {
    Label& label_i = labels[i];
    const double width = kCharacter * static_cast<double>(label_i.text.size());
    const bool left = label_i.x + width + 8 > kWidth - kRight;
    label_i.x += left ? -8 - width : 8;
    for (size_t j = 0; j < i; ++j) {
      const Label& other = labels[j];
      const double other_width = kCharacter * static_cast<double>(other.text.size());
      const bool apart = label_i.x > other.x + other_width || other.x > label_i.x + width;
      if (!apart && label_i.y < other.y + kLineHeight) label_i.y = other.y + kLineHeight;
    }
    svg += label(label_i.x, label_i.y, "start", label_i.text);
  }
}

}  // namespace

std::string escape_xml(const std::string& text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string scatter_chart(const std::string& x_label, const std::string& y_label,
                          const std::vector<Series>& series) {
  std::vector<Series> drawn;
  std::ranges::copy_if(series, std::back_inserter(drawn),
                       [](const Series& each) { return !each.points.empty(); });
  if (drawn.empty()) return "";
  std::string svg = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\">\n", kWidth, kHeight);
  const Axes axes = fit_axes(drawn);
  draw_axes(axes, x_label, y_label, svg);
  for (size_t i = 0; i < drawn.size(); ++i) draw_series(axes, drawn[i], i, svg);
  draw_names(axes, drawn, svg);
  return svg + "</svg>\n";
}

std::string stacked_bars(const std::vector<StackedColumn>& columns, int group) {
  constexpr double kBarHeight = 96;
  const double count = static_cast<double>(columns.size());
  const double slot = std::clamp((kWidth - 2 * kRight) / (count * (1 + 0.5 / group)), 3.0, 28.0);
  std::string svg;
  double x = 0;
  for (size_t i = 0; i < columns.size(); ++i) {
    if (i % static_cast<size_t>(group) == 0) {
      if (i > 0) x += slot * 0.5;
      svg += label(x + slot * group / 2, kBarHeight + 16, "middle",
                   std::to_string(i / static_cast<size_t>(group)));
    }
    svg += fmt::format("<g><title>{}</title>\n", escape_xml(columns[i].name));
    double y = kBarHeight;
    for (size_t part = 0; part < columns[i].shares.size(); ++part) {
      const double height = columns[i].shares[part] * kBarHeight;
      if (height == 0) continue;
      y -= height;
      svg += fmt::format(
          "<rect class=\"f{}\" x=\"{:.1f}\" y=\"{:.2f}\" width=\"{:.1f}\" height=\"{:.2f}\"/>\n",
          part, x, y, slot * 0.86, height);
    }
    svg += "</g>\n";
    x += slot;
  }
  return fmt::format(
             "<svg viewBox=\"0 0 {:.0f} {:.0f}\" style=\"max-width:{:.0f}px\" role=\"img\">\n", x,
             kBarHeight + 24, x) +
         svg + "</svg>\n";
}

}  // namespace micromix
