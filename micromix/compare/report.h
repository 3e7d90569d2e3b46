// A comparison for people: a Markdown table, and a page with charts that opens offline.
#pragma once

#include <string>

#include "micromix/compare/comparison.h"

namespace micromix {

// One row a run.
std::string markdown_table(const Comparison& comparison);

// Self-contained HTML: KL and perplexity against average bits, one line a method; the allocation of
// every input as stacked bars; the table.
std::string html_report(const Comparison& comparison);

}  // namespace micromix
