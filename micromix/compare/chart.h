// Charts as inline SVG: colours and text follow the page's style sheet (classes c0 to c11, and
// currentColor).
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

namespace micromix {

// One method: a line through its points where it has several.
struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x ascending, y > 0
};

// An XML text of what may hold <, > and &.
std::string escape_xml(const std::string& text);

// Points over a linear x and a logarithmic y axis, each series named beside its last point.
std::string scatter_chart(const std::string& x_label, const std::string& y_label,
                          const std::vector<Series>& series);

// One stacked bar a column: shares of up to 4 parts that add up to 1. Columns stand in groups of
// GROUP, numbered from 0 below.
struct StackedColumn {
  std::string name;  // shown on hovering
  std::array<double, 4> shares;
};
std::string stacked_bars(const std::vector<StackedColumn>& columns, int group);

}  // namespace micromix
