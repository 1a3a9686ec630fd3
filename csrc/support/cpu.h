// What the CPU can do, asked of itself.
#pragma once

#include <string>
#include <vector>

namespace ltm {

// Names of the x86 vector instructions that this CPU has and this system lets programs use, spelled as llama.cpp spells
// them in `ggml_cpu_has_…`. Empty where that can't be asked: other machines, other compilers.
[[nodiscard]] std::vector<std::string> cpu_features();

}  // namespace ltm
