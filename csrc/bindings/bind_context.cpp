// The context: passes that write, score and commit.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bindings/bindings.h"
#include "bindings/convert.h"
#include "bindings/gil.h"
#include "bindings/signal_poll.h"
#include "engine/context.h"
#include "support/error.h"

namespace py = pybind11;

namespace ltm {
namespace {

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

// Runs `call(poll)` without the GIL and raises what signal handlers raised meanwhile.
template <typename Call>
auto polled(const Call& call) {
    SignalPoll poll;
    const StopPoll stop = std::ref(poll);
    auto result = [&] {
        const WithoutGil release;
        return call(stop);
    }();
    if (poll.raised) throw py::error_already_set(*poll.raised);
    return result;
}

std::vector<Generation> generate(Context& context, const std::vector<std::pair<Tokens, GenerateOptions>>& given,
                                 const AdapterState& adapters, const py::object& on_text) {
    std::vector<Request> requests;
    for (const auto& [prompt, options] : given) requests.push_back({from_array(prompt), options});
    std::optional<py::error_already_set> sink_error;
    TextSink sink;
    if (!on_text.is_none()) {
        sink = [&](std::size_t index, std::string_view text) {
            const py::gil_scoped_acquire gil;
            if (sink_error) return false;
            try {
                on_text(index, to_str(text));
                return true;
            } catch (py::error_already_set& error) {
                sink_error.emplace(std::move(error));
                return false;
            }
        };
    }
    std::vector<Generation> result = polled([&](const StopPoll& poll) {
        const StopPoll stop = [&] { return sink_error.has_value() || poll(); };
        return context.generate(requests, adapters, sink, stop);
    });
    if (sink_error) throw py::error_already_set(*sink_error);
    return result;
}

void bind_adapters(py::module_& m) {
    py::class_<Adapter, std::shared_ptr<Adapter>>(m, "Adapter")
        .def_static(
            "load",
            [](std::shared_ptr<Model> model, const std::string& path) {
                const WithoutGil release;
                return Adapter::load(std::move(model), path);
            },
            py::arg("model"), py::arg("path"), "Load a LoRA in GGUF form. Raises ModelError.");
    py::class_<ControlVector, std::shared_ptr<ControlVector>>(m, "ControlVector")
        .def(
            py::init([](const Floats& directions) {
                if (directions.ndim() != 2) {
                    throw Error(ErrorCode::invalid_argument, "control vector: expected float32 [n_layer - 1, n_embd]");
                }
                return std::make_shared<ControlVector>(ControlVector{
                    {directions.data(), directions.data() + directions.size()}, static_cast<int>(directions.shape(1))});
            }),
            py::arg("directions"), "Directions for layers 1 to n_layer - 1, float32 [n_layer - 1, n_embd].");
    py::class_<AdapterState>(m, "AdapterState")
        .def(py::init<>())
        .def(py::init([](std::vector<std::pair<std::shared_ptr<Adapter>, float>> loras,
                         std::shared_ptr<ControlVector> control,
                         float scale) { return AdapterState::make(std::move(loras), std::move(control), scale); }),
             py::arg("loras"), py::arg("control") = nullptr, py::arg("control_scale") = 1.0F)
        .def("__eq__", [](const AdapterState& a, const AdapterState& b) { return a == b; });
}

void bind_options(py::module_& m) {
    py::class_<ContextOptions>(m, "ContextOptions")
        .def(py::init<>())
        .def_readwrite("n_ctx", &ContextOptions::n_ctx)
        .def_readwrite("n_batch", &ContextOptions::n_batch)
        .def_readwrite("n_threads", &ContextOptions::n_threads)
        .def_readwrite("n_threads_batch", &ContextOptions::n_threads_batch)
        .def_readwrite("flash_attn", &ContextOptions::flash_attn)
        .def_readwrite("type_k", &ContextOptions::type_k)
        .def_readwrite("type_v", &ContextOptions::type_v)
        .def_readwrite("offload_kqv", &ContextOptions::offload_kqv)
        .def_readwrite("n_seq_max", &ContextOptions::n_seq_max);
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
        .def_readwrite("force", &GenerateOptions::force)
        .def_property(
            "references", [](const GenerateOptions& o) { return o.references.size(); },
            [](GenerateOptions& o, const std::vector<Tokens>& references) {
                o.references.clear();
                for (const Tokens& reference : references) o.references.push_back(from_array(reference));
            });
    py::class_<Generation>(m, "Generation")
        .def_property_readonly("tokens", [](const Generation& g) { return to_array(g.tokens); })
        .def_property_readonly("text", [](const Generation& g) { return to_str(g.text); })
        .def_property_readonly("stop", [](const Generation& g) { return stop_name(g.stop); })
        .def_readonly("n_prompt", &Generation::n_prompt)
        .def_readonly("n_reused", &Generation::n_reused)
        .def_readonly("n_shared", &Generation::n_shared)
        .def_readonly("n_prefilled", &Generation::n_prefilled)
        .def_readonly("n_forced", &Generation::n_forced)
        .def_readonly("n_proposed", &Generation::n_proposed)
        .def_readonly("n_copied", &Generation::n_copied)
        .def_readonly("n_resampled", &Generation::n_resampled)
        .def_readonly("ms_prefill", &Generation::ms_prefill)
        .def_readonly("ms_decode", &Generation::ms_decode)
        .def_readonly("ms_sample", &Generation::ms_sample);
    py::class_<Score>(m, "Score")
        .def_readonly("logprobs", &Score::logprobs)
        .def_readonly("n_reused", &Score::n_reused)
        .def_readonly("n_prefilled", &Score::n_prefilled);
    py::class_<Commit>(m, "Commit")
        .def_readonly("n_reused", &Commit::n_reused)
        .def_readonly("n_prefilled", &Commit::n_prefilled)
        .def_readonly("complete", &Commit::complete);
}

}  // namespace

void bind_context(py::module_& m) {
    bind_adapters(m);
    bind_options(m);
    py::class_<Context>(m, "Context")
        .def(py::init([](std::shared_ptr<Model> model, const ContextOptions& options) {
                 const WithoutGil release;
                 return std::make_unique<Context>(std::move(model), options);
             }),
             py::arg("model"), py::arg("options"))
        .def("generate", &generate, py::arg("requests"), py::arg("adapters") = AdapterState{},
             py::arg("on_text") = py::none(),
             "Write after each prompt of [(int32 [n], GenerateOptions)], in common batches; `on_text(index, text)` "
             "receives whole characters as they are written.")
        .def(
            "score",
            [](Context& self, const std::vector<std::pair<Tokens, std::vector<Tokens>>>& given,
               const AdapterState& adapters) {
                std::vector<ScoreRequest> requests;
                for (const auto& [prompt, continuations] : given) {
                    ScoreRequest& request = requests.emplace_back();
                    request.prompt = from_array(prompt);
                    for (const Tokens& tokens : continuations) request.continuations.push_back(from_array(tokens));
                }
                return polled([&](const StopPoll& poll) { return self.score(requests, adapters, poll); });
            },
            py::arg("requests"), py::arg("adapters") = AdapterState{},
            "Log-probabilities of continuations of [(prompt int32 [n], [int32 [m], ...])]; empty if cancelled.")
        .def(
            "commit",
            [](Context& self, const Tokens& tokens) {
                const std::vector<llama_token> list = from_array(tokens);
                return polled([&](const StopPoll& poll) { return self.commit(list, poll); });
            },
            py::arg("tokens"), "Compute KV of tokens (int32 [n]) under the base state and make it the spine.")
        .def(
            "rebase",
            [](Context& self, const Tokens& tokens, std::size_t keep, std::size_t count) {
                const std::vector<llama_token> list = from_array(tokens);
                const WithoutGil release;
                return self.rebase(list, keep, count);
            },
            py::arg("tokens"), py::arg("keep"), py::arg("count"),
            "Take `count` tokens behind the first `keep` out of the cached sequence that begins with `tokens`.")
        .def("set_base", &Context::set_base, py::arg("adapters"))
        .def(
            "save",
            [](Context& self, const Tokens& tokens) {
                const std::vector<llama_token> list = from_array(tokens);
                Context::Saved saved;
                {
                    const WithoutGil release;
                    saved = self.save(list);
                }
                auto* bytes = new std::vector<std::uint8_t>(std::move(saved.bytes));
                const py::capsule owner(bytes, [](void* p) { delete static_cast<std::vector<std::uint8_t>*>(p); });
                return py::make_tuple(
                    py::array_t<std::uint8_t>({bytes->size()}, {std::size_t{1}}, bytes->data(), owner), saved.n);
            },
            py::arg("tokens"), "KV of the longest cached prefix of `tokens`: (uint8 [bytes], tokens in it).")
        .def(
            "restore",
            [](Context& self, const Tokens& tokens, const py::buffer& data) {
                const std::vector<llama_token> list = from_array(tokens);
                const py::buffer_info info = data.request();
                const WithoutGil release;
                return self.restore(list, static_cast<const std::uint8_t*>(info.ptr),
                                    static_cast<std::size_t>(info.size * info.itemsize));
            },
            py::arg("tokens"), py::arg("data"), "Take KV that `save` gave for exactly these tokens; False if refused.")
        .def("cancel", &Context::cancel, "Stop the running pass, or the next; callable from any thread.")
        .def("resume", &Context::resume, "Forget a cancel that has not been acted upon.")
        .def("clear", &Context::clear, "Forget all KV.")
        .def_property_readonly("can_shift", &Context::can_shift)
        .def_property_readonly("can_cut", &Context::can_cut)
        .def_property_readonly("n_ctx", &Context::n_ctx)
        .def_property_readonly("n_cached", &Context::n_cached)
        .def_property_readonly("n_sequences", &Context::n_sequences)
        .def_property_readonly("n_leased", &Context::n_leased)
        .def_property_readonly("adapter_changes", &Context::adapter_changes)
        .def_property_readonly("adapter_ms", &Context::adapter_ms);
}

}  // namespace ltm
