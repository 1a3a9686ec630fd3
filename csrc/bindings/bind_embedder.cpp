#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "bindings/signal_poll.h"
#include "engine/embedder.h"
#include "support/error.h"

namespace py = pybind11;

namespace ltm {
namespace {

py::tuple embed(Embedder& self, const std::vector<std::string>& texts) {
    SignalPoll poll;
    Embeddings found;
    try {
        const WithoutGil release;
        found = self.embed(texts, std::ref(poll));
    } catch (const Error&) {
        if (poll.raised) throw py::error_already_set(*poll.raised);
        throw;
    }
    py::array_t<float> rows({static_cast<py::ssize_t>(found.n_texts), static_cast<py::ssize_t>(self.dim())},
                            found.values.data());
    return py::make_tuple(rows, found.n_tokens, found.n_cut, found.n_batches);
}

}  // namespace

void bind_embedder(py::module_& m) {
    py::class_<EmbedderOptions>(m, "EmbedderOptions")
        .def(py::init<>())
        .def_readwrite("n_ctx", &EmbedderOptions::n_ctx)
        .def_readwrite("n_batch", &EmbedderOptions::n_batch)
        .def_readwrite("n_seq_max", &EmbedderOptions::n_seq_max)
        .def_readwrite("n_threads", &EmbedderOptions::n_threads)
        .def_readwrite("pooling", &EmbedderOptions::pooling);
    py::class_<Embedder>(m, "Embedder")
        .def(py::init([](std::shared_ptr<Model> model, const EmbedderOptions& options) {
                 const WithoutGil release;
                 return std::make_unique<Embedder>(std::move(model), options);
             }),
             py::arg("model"), py::arg("options"))
        .def("embed", &embed, py::arg("texts"),
             "Vectors of length 1 of UTF-8 texts, as (float32 [n, dim], tokens, texts that were cut, batches).")
        .def(
            "tokens",
            [](const Embedder& self, const std::string& text) {
                const std::vector<llama_token> found = self.tokens(text);
                return py::array_t<llama_token>(static_cast<py::ssize_t>(found.size()), found.data());
            },
            py::arg("text"), "Tokens that stand for a text, int32 [n].")
        .def("cancel", &Embedder::cancel, "Stop the running embed, or the next; callable from any thread.")
        .def("resume", &Embedder::resume, "Forget a cancel that has not been acted upon.")
        .def_property_readonly("dim", &Embedder::dim)
        .def_property_readonly("n_ctx", &Embedder::n_ctx)
        .def_property_readonly("pooling", &Embedder::pooling);
}

}  // namespace ltm
