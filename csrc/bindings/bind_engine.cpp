#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bindings/bindings.h"
#include "bindings/convert.h"
#include "bindings/gil.h"
#include "bindings/signal_poll.h"
#include "engine/backend.h"
#include "engine/model.h"
#include "grammar/mask_cache.h"
#include "support/cpu.h"
#include "support/error.h"

namespace py = pybind11;

namespace ltm {
namespace {

void bind_backend(py::module_& m) {
    py::class_<Device>(m, "Device")
        .def_readonly("name", &Device::name)
        .def_readonly("description", &Device::description)
        .def_readonly("type", &Device::type)
        .def_readonly("memory_free", &Device::memory_free)
        .def_readonly("memory_total", &Device::memory_total);
    m.def("devices", &list_devices, "Compute devices that llama.cpp sees.");
    m.def("system_info", &system_info, "CPU features and back ends that llama.cpp was built with.");
    m.def("llama_version", &llama_build, "Version of the loaded libllama.");
    m.def("llama_mismatch", &llama_mismatch,
          "What is wrong with the loaded libllama for this extension; empty where it is the right one.");
    m.def("load_backends", &load_backends, py::arg("folder"),
          "Load back ends that stand in files of their own; before everything else.");
    m.def("cpu_features", &cpu_features, "Names of the vector instructions that this CPU and system have.");
    m.attr("built_for") = LTM_LLAMA_CPP_PYTHON;
    m.def("supports_gpu_offload", &supports_gpu_offload);
    m.def("ensure_backend", &ensure_backend, "Initialise llama.cpp and take over its log; once.");
    m.def("take_log", &take_log, "Take over llama.cpp's log again.");
    m.def(
        "drain_log",
        [] {
            py::list out;
            for (const LogRecord& record : drain_log()) out.append(py::make_tuple(record.level, to_str(record.text)));
            return out;
        },
        "Log lines of llama.cpp since the last call, as (level, text).");
}

void bind_model(py::module_& m) {
    py::class_<ModelOptions>(m, "ModelOptions")
        .def(py::init<>())
        .def_readwrite("path", &ModelOptions::path)
        .def_readwrite("n_gpu_layers", &ModelOptions::n_gpu_layers)
        .def_readwrite("devices", &ModelOptions::devices)
        .def_readwrite("use_mmap", &ModelOptions::use_mmap)
        .def_readwrite("vocab_only", &ModelOptions::vocab_only);
    py::class_<Model, std::shared_ptr<Model>>(m, "Model")
        .def_static(
            "load",
            [](const ModelOptions& options) {
                SignalPoll poll;
                std::shared_ptr<Model> model;
                try {
                    const WithoutGil release;
                    model = Model::load(options, [&](float) { return !poll(); });
                } catch (const Error&) {
                    if (poll.raised) throw py::error_already_set(*poll.raised);
                    throw;
                }
                return model;
            },
            py::arg("options"), "Load a GGUF file. Raises ModelError.")
        .def(
            "tokenize",
            [](const Model& self, const std::string& text, bool add_special, bool parse_special) {
                std::vector<llama_token> tokens;
                {
                    const WithoutGil release;
                    tokens = self.tokenize(text, add_special, parse_special);
                }
                return to_array(tokens);
            },
            py::arg("text"), py::arg("add_special") = false, py::arg("parse_special") = false,
            "Tokens of `text` (str or UTF-8 bytes), int32 [n].")
        .def(
            "tokenize_inner",
            [](const Model& self, const py::bytes& text) {
                return to_array(self.tokenize_inner(std::string_view(text)));
            },
            py::arg("text"), "Tokens of UTF-8 bytes as they stand in the middle of a text, int32 [n].")
        .def(
            "detokenize",
            [](const Model& self, const Tokens& tokens, bool special) {
                return py::bytes(self.detokenize(from_array(tokens), special));
            },
            py::arg("tokens"), py::arg("special") = false, "Bytes of the tokens.")
        .def(
            "piece",
            [](const Model& self, llama_token token, bool special) { return py::bytes(self.piece(token, special)); },
            py::arg("token"), py::arg("special") = false)
        .def(
            "special_tokens",
            [](const Model& self) {
                py::list out;
                for (const auto& [token, text] : self.special_tokens()) out.append(py::make_tuple(token, to_str(text)));
                return out;
            },
            "Tokens that are never plain text, as (id, text).")
        .def(
            "grammar_vocab",
            [](const Model& self) {
                const WithoutGil release;
                return std::const_pointer_cast<grammar::Vocab>(self.grammar_vocab());
            },
            "The vocabulary as the grammar engine sees it; built on first use.")
        .def(
            "use_grammar_vocab",
            [](const Model& self, std::shared_ptr<grammar::Vocab> vocab) { self.use_grammar_vocab(std::move(vocab)); },
            py::arg("vocab"))
        .def(
            "compile_grammar",
            [](const Model& self, const std::string& gbnf) {
                const WithoutGil release;
                return std::make_shared<grammar::MaskCache>(std::make_shared<const grammar::Grammar>(gbnf),
                                                            self.grammar_vocab());
            },
            py::arg("gbnf"), "A grammar over this model's vocabulary. Raises GrammarError.")
        .def("metadata",
             [](const Model& self) {
                 py::dict out;
                 for (const auto& [key, value] : self.metadata()) out[to_str(key)] = to_str(value);
                 return out;
             })
        .def("chat_template", [](const Model& self) { return to_str(self.chat_template()); })
        .def("apply_builtin_template", &Model::apply_builtin_template, py::arg("chat_template"), py::arg("messages"))
        .def_property_readonly("description", [](const Model& self) { return to_str(self.description()); })
        .def_property_readonly("n_vocab", &Model::n_vocab)
        .def_property_readonly("n_params", [](const Model& s) { return llama_model_n_params(s.handle()); })
        .def_property_readonly("n_bytes", [](const Model& s) { return llama_model_size(s.handle()); })
        .def_property_readonly("n_layer", [](const Model& s) { return llama_model_n_layer(s.handle()); })
        .def_property_readonly("n_embd", [](const Model& s) { return llama_model_n_embd(s.handle()); })
        .def_property_readonly("n_ctx_train", [](const Model& s) { return llama_model_n_ctx_train(s.handle()); })
        .def_property_readonly("has_encoder", [](const Model& s) { return llama_model_has_encoder(s.handle()); })
        .def_property_readonly("has_decoder", [](const Model& s) { return llama_model_has_decoder(s.handle()); })
        .def_property_readonly("bos", [](const Model& s) { return llama_vocab_bos(s.vocab()); })
        .def_property_readonly("eos", [](const Model& s) { return llama_vocab_eos(s.vocab()); })
        .def_property_readonly("add_bos", [](const Model& s) { return llama_vocab_get_add_bos(s.vocab()); })
        .def("is_eog", [](const Model& s, llama_token token) {
            return token >= 0 && token < s.n_vocab() && llama_vocab_is_eog(s.vocab(), token);
        });
}

}  // namespace

void bind_engine(py::module_& m) {
    bind_backend(m);
    bind_model(m);
}

}  // namespace ltm
