// The extension module. Holds no policy: it converts, releases the GIL and maps errors.
#include <pybind11/pybind11.h>

#include "bindings/bindings.h"
#include "bindings/gil.h"

PYBIND11_MODULE(_core, m) {
    m.doc() = "Native part of ltm-edge.";
    ltm::register_errors(m);
    ltm::bind_grammar(m);
    ltm::bind_engine(m);
    ltm::bind_context(m);
    ltm::bind_embedder(m);
    ltm::bind_memory(m);
    ltm::bind_bench(m);
    m.def(
        "end_calls",
        [](double seconds) {
            return ltm::WithoutGil::end(std::chrono::milliseconds(static_cast<long long>(seconds * 1000)));
        },
        pybind11::arg("seconds"),
        "Stop the calls of other threads, for good, and wait for them; False if some still run after `seconds`.");
}
