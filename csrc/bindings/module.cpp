// The extension module. Holds no policy: it converts, releases the GIL and maps errors.
#include <pybind11/pybind11.h>

#include "bindings/bindings.h"

PYBIND11_MODULE(_core, m) {
    m.doc() = "Native part of ltm-edge.";
    ltm::register_errors(m);
    ltm::bind_grammar(m);
    ltm::bind_engine(m);
    ltm::bind_context(m);
    ltm::bind_embedder(m);
    ltm::bind_memory(m);
    ltm::bind_bench(m);
}
