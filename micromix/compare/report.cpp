#include "micromix/compare/report.h"

#include <algorithm>

#include <fmt/format.h>

#include "micromix/checkpoint/names.h"
#include "micromix/compare/chart.h"

namespace micromix {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --ink: #1c2430; --quiet: #667080; --line: #d9dee6; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --quiet: #98a2b3; --line: #343c49; --paper: #14181f; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; }
p, figcaption { color: var(--quiet); } figure { margin: 0; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.grid { stroke: var(--line); } polyline { fill: none; stroke-width: 2.5; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: right; padding: .25rem .75rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em; }
.c0 { fill: #2f6fde; stroke: #2f6fde; } .c1 { fill: #d9542b; stroke: #d9542b; }
.c2 { fill: #18936a; stroke: #18936a; } .c3 { fill: #a44fc0; stroke: #a44fc0; }
.c4 { fill: #b8860b; stroke: #b8860b; } .c5 { fill: #0f8ea8; stroke: #0f8ea8; }
.c6 { fill: #c43d70; stroke: #c43d70; } .c7 { fill: #6b7785; stroke: #6b7785; }
.c8 { fill: #7a5c3e; stroke: #7a5c3e; } .c9 { fill: #5b7f2b; stroke: #5b7f2b; }
.c10 { fill: #8fa3c8; stroke: #8fa3c8; } .c11 { fill: #d98fb0; stroke: #d98fb0; }
.f0 { fill: #7fb2f0; background: #7fb2f0; } .f1 { fill: #3fa38a; background: #3fa38a; }
.f2 { fill: #e0a83c; background: #e0a83c; } .f3 { fill: #c8503c; background: #c8503c; }
)";

// "budget+gptq, 5 bits"
std::string title_of(const ComparisonRun& run) {
  return run.target_bits ? fmt::format("{}, {:g} bits", run.method, *run.target_bits) : run.method;
}

// One series a method, points by ascending bits; values that are not positive have no place on a
// logarithmic axis.
std::vector<Series> series_of(const Comparison& comparison, double ComparisonRun::*value) {
  std::vector<Series> series;
  for (const ComparisonRun& run : comparison.runs) {
    if (run.method == "bf16" || !(run.*value > 0)) continue;
    auto it = std::ranges::find(series, run.method, &Series::name);
    if (it == series.end()) it = series.insert(it, Series{run.method, {}});
    it->points.emplace_back(run.average_bits, run.*value);
  }
  for (Series& each : series) std::ranges::sort(each.points);
  // Lines first: they are what the page is about, and take the first colours.
  std::ranges::stable_sort(series, [](const Series& a, const Series& b) {
    return a.points.size() > 1 && b.points.size() == 1;
  });
  return series;
}

std::vector<StackedColumn> columns_of(const ComparisonRun& run) {
  std::vector<StackedColumn> columns;
  for (size_t layer = 0; layer < run.allocation.size(); ++layer) {
    for (InputRole role : kInputRoles) {
      const auto& channels = run.allocation[layer][static_cast<size_t>(role)];
      int64_t total = 0;
      for (int64_t count : channels) total += count;
      StackedColumn column{fmt::format("layer {} {}:", layer, names::short_name(role)), {}};
      for (size_t f = 0; f < channels.size(); ++f) {
        if (total > 0) {
          column.shares[f] = static_cast<double>(channels[f]) / static_cast<double>(total);
        }
        column.name += fmt::format(" {} {}", mx::name(mx::kOperandFormats[f]), channels[f]);
      }
      columns.push_back(std::move(column));
    }
  }
  return columns;
}

// Bars of every mixed allocation, once: how weights are rounded does not change it.
std::string allocation_section(const Comparison& comparison) {
  std::string html;
  std::vector<const ComparisonRun*> shown;
  for (const ComparisonRun& run : comparison.runs) {
    const bool mixed = !run.allocation.empty() && !run.method.starts_with("uniform:");
    const bool again = std::ranges::any_of(
        shown, [&](const ComparisonRun* other) { return other->allocation == run.allocation; });
    if (!mixed || again) continue;
    shown.push_back(&run);
    html += fmt::format("<figure><figcaption>{}: {:.2f} bits</figcaption>{}</figure>\n",
                        escape_xml(title_of(run)), run.average_bits,
                        stacked_bars(columns_of(run), static_cast<int>(kInputRoles.size())));
  }
  if (html.empty()) return html;
  std::string keys;
  for (size_t f = 0; f < mx::kOperandFormats.size(); ++f) {
    keys += fmt::format("<span class=\"key f{}\"></span>{}", f, mx::name(mx::kOperandFormats[f]));
  }
  return "<h2>Allocation</h2>\n<p>Channels of each input in each format, four inputs a decoder "
         "layer: "
         "attention, attention output, MLP, MLP down." +
         keys + "</p>\n" + html;
}

std::string table_section(const Comparison& comparison) {
  std::string html =
      "<h2>Table</h2>\n<table><tr><th>method</th><th>average bits</th><th>bits a parameter</th>"
      "<th>perplexity</th>"
      "<th>KL</th><th>same top token</th></tr>\n";
  for (const ComparisonRun& run : comparison.runs) {
    html += fmt::format(
        "<tr><td>{}</td><td>{:.3f}</td><td>{:.2f}</td><td>{:.2f}</td><td>{:.4f}</td><td>{:.4f}</"
        "td></tr>\n",
        escape_xml(title_of(run)), run.average_bits, run.bits_per_parameter, run.perplexity, run.kl,
        run.top1);
  }
  return html + "</table>\n";
}

std::string text_of(const Json& inputs, const char* key) {
  return inputs.contains(key) && inputs.at(key).is_string()
             ? escape_xml(inputs.at(key).get<std::string>())
             : "";
}

}  // namespace

std::string markdown_table(const Comparison& comparison) {
  std::string table =
      "| method | average bits | bits a parameter | perplexity | KL | same top token |\n"
      "|---|---|---|---|---|---|\n";
  for (const ComparisonRun& run : comparison.runs) {
    table +=
        fmt::format("| {} | {:.3f} | {:.2f} | {:.2f} | {:.4f} | {:.4f} |\n", title_of(run),
                    run.average_bits, run.bits_per_parameter, run.perplexity, run.kl, run.top1);
  }
  return table;
}

std::string html_report(const Comparison& comparison) {
  const std::string model = text_of(comparison.inputs, "model");
  std::string html = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n"
      "<title>{0}: accuracy against bits</title>\n<style>{1}</style>\n<h1>{0}</h1>\n"
      "<p>Calibrated on {2}, evaluated on {3}. Average bits count the quantized linears' weights "
      "with "
      "their scales; activations take the format of the weights they meet.</p>\n",
      model, kStyle, text_of(comparison.inputs, "calibration_text"),
      text_of(comparison.inputs, "evaluation_text"));
  html +=
      "<h2>KL divergence from BF16</h2>\n" +
      scatter_chart("average bits", "KL, nats a token", series_of(comparison, &ComparisonRun::kl));
  html += "<h2>Perplexity</h2>\n";
  for (const ComparisonRun& run : comparison.runs) {
    if (run.method == "bf16") html += fmt::format("<p>BF16: {:.2f}</p>\n", run.perplexity);
  }
  html += scatter_chart("average bits", "perplexity",
                        series_of(comparison, &ComparisonRun::perplexity));
  return html + allocation_section(comparison) + table_section(comparison) + "</html>\n";
}

}  // namespace micromix
