// One register function per bound area.
#pragma once

#include <pybind11/pybind11.h>

namespace ltm {

void register_errors(pybind11::module_& m);
void bind_context(pybind11::module_& m);
void bind_engine(pybind11::module_& m);
void bind_grammar(pybind11::module_& m);
void bind_bench(pybind11::module_& m);
void bind_embedder(pybind11::module_& m);
void bind_memory(pybind11::module_& m);

}  // namespace ltm
