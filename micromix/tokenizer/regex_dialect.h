// From Oniguruma's regular expressions (Ruby syntax) to PCRE2's.
#pragma once

#include <string>

namespace micromix {

// A PCRE2 pattern (UTF, UCP, MULTILINE) that matches what PATTERN does in Oniguruma. Throws
// Error("FILE: FIELD: ...") naming the construct where the two differ and no rewriting is known.
// Syntax errors are left for PCRE2 to find.
std::string pcre2_from_oniguruma(const std::string& pattern, const std::string& file,
                                 const std::string& field);

}  // namespace micromix
