#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bindings/bindings.h"
#include "bindings/signal_poll.h"
#include "engine/backend.h"
#include "engine/context.h"
#include "engine/model.h"
#include "support/error.h"

namespace py = pybind11;

namespace ltm {
namespace {

using Tokens = py::array_t<llama_token, py::array::c_style | py::array::forcecast>;

Tokens to_array(const std::vector<llama_token>& tokens) {
    return Tokens(static_cast<py::ssize_t>(tokens.size()), tokens.data());
}

std::vector<llama_token> from_array(const Tokens& array) {
    if (array.ndim() != 1) throw Error(ErrorCode::invalid_argument, "tokens: expected a one-dimensional int32 array");
    return {array.data(), array.data() + array.size()};
}

py::str to_str(std::string_view bytes) {
    PyObject* text = PyUnicode_DecodeUTF8(bytes.data(), static_cast<py::ssize_t>(bytes.size()), "replace");
    if (text == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::str>(text);
}

Generation generate(Context& context, const Tokens& prompt, const GenerateOptions& options, const py::object& on_text) {
    const std::vector<llama_token> tokens = from_array(prompt);
    SignalPoll poll;
    std::optional<py::error_already_set> sink_error;
    TextSink sink;
    if (!on_text.is_none()) {
        sink = [&](std::string_view text) {
            const py::gil_scoped_acquire gil;
            try {
                on_text(to_str(text));
                return true;
            } catch (py::error_already_set& error) {
                sink_error.emplace(std::move(error));
                return false;
            }
        };
    }
    Generation result;
    {
        const py::gil_scoped_release release;
        result = context.generate(tokens, options, sink, std::ref(poll));
    }
    if (sink_error) throw py::error_already_set(*sink_error);
    if (poll.raised) throw py::error_already_set(*poll.raised);
    return result;
}

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
    m.def("supports_gpu_offload", &supports_gpu_offload);
    m.def("ensure_backend", &ensure_backend, "Initialise llama.cpp and take over its log.");
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
                    const py::gil_scoped_release release;
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
                    const py::gil_scoped_release release;
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
                const py::gil_scoped_release release;
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
                const py::gil_scoped_release release;
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

void bind_context(py::module_& m) {
    py::class_<ContextOptions>(m, "ContextOptions")
        .def(py::init<>())
        .def_readwrite("n_ctx", &ContextOptions::n_ctx)
        .def_readwrite("n_batch", &ContextOptions::n_batch)
        .def_readwrite("n_threads", &ContextOptions::n_threads)
        .def_readwrite("n_threads_batch", &ContextOptions::n_threads_batch)
        .def_readwrite("flash_attn", &ContextOptions::flash_attn)
        .def_readwrite("type_k", &ContextOptions::type_k)
        .def_readwrite("type_v", &ContextOptions::type_v)
        .def_readwrite("offload_kqv", &ContextOptions::offload_kqv);
    py::class_<SamplingOptions>(m, "SamplingOptions")
        .def(py::init<>())
        .def_readwrite("temperature", &SamplingOptions::temperature)
        .def_readwrite("top_k", &SamplingOptions::top_k)
        .def_readwrite("top_p", &SamplingOptions::top_p)
        .def_readwrite("min_p", &SamplingOptions::min_p)
        .def_readwrite("repeat_penalty", &SamplingOptions::repeat_penalty)
        .def_readwrite("frequency_penalty", &SamplingOptions::frequency_penalty)
        .def_readwrite("presence_penalty", &SamplingOptions::presence_penalty)
        .def_readwrite("repeat_last_n", &SamplingOptions::repeat_last_n)
        .def_readwrite("dry_multiplier", &SamplingOptions::dry_multiplier)
        .def_readwrite("dry_base", &SamplingOptions::dry_base)
        .def_readwrite("dry_allowed_length", &SamplingOptions::dry_allowed_length)
        .def_readwrite("dry_last_n", &SamplingOptions::dry_last_n)
        .def_readwrite("dry_breakers", &SamplingOptions::dry_breakers)
        .def_readwrite("seed", &SamplingOptions::seed);
    py::class_<GenerateOptions>(m, "GenerateOptions")
        .def(py::init<>())
        .def_readwrite("sampling", &GenerateOptions::sampling)
        .def_readwrite("max_tokens", &GenerateOptions::max_tokens)
        .def_readwrite("grammar", &GenerateOptions::grammar)
        .def_readwrite("llama_grammar", &GenerateOptions::llama_grammar)
        .def_readwrite("force", &GenerateOptions::force);
    py::class_<Generation>(m, "Generation")
        .def_property_readonly("tokens", [](const Generation& g) { return to_array(g.tokens); })
        .def_property_readonly("text", [](const Generation& g) { return to_str(g.text); })
        .def_property_readonly("stop", [](const Generation& g) { return stop_name(g.stop); })
        .def_readonly("n_prompt", &Generation::n_prompt)
        .def_readonly("n_reused", &Generation::n_reused)
        .def_readonly("n_prefilled", &Generation::n_prefilled)
        .def_readonly("n_forced", &Generation::n_forced)
        .def_readonly("n_resampled", &Generation::n_resampled)
        .def_readonly("ms_prefill", &Generation::ms_prefill)
        .def_readonly("ms_decode", &Generation::ms_decode)
        .def_readonly("ms_sample", &Generation::ms_sample);
    py::class_<Context>(m, "Context")
        .def(py::init([](std::shared_ptr<Model> model, const ContextOptions& options) {
                 const py::gil_scoped_release release;
                 return std::make_unique<Context>(std::move(model), options);
             }),
             py::arg("model"), py::arg("options"))
        .def("generate", &generate, py::arg("prompt"), py::arg("options"), py::arg("on_text") = py::none(),
             "Write after `prompt` (int32 [n]); `on_text` receives whole characters as they are written.")
        .def("cancel", &Context::cancel, "Stop the running generate, or the next; callable from any thread.")
        .def("resume", &Context::resume, "Forget a cancel that has not been acted upon.")
        .def("clear", &Context::clear, "Forget all KV.")
        .def_property_readonly("n_ctx", &Context::n_ctx)
        .def_property_readonly("n_cached", &Context::n_cached);
}

}  // namespace

void bind_engine(py::module_& m) {
    bind_backend(m);
    bind_model(m);
    bind_context(m);
}

}  // namespace ltm
