#include "engine/context.h"

#include <ggml.h>

#include <algorithm>
#include <chrono>

#include "engine/backend.h"
#include "support/error.h"
#include "support/utf8.h"

namespace ltm {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

ggml_type kv_type(const std::string& name) {
    static constexpr ggml_type kAllowed[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q8_0,
                                             GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1};
    std::string known;
    for (const ggml_type type : kAllowed) {
        if (name == ggml_type_name(type)) return type;
        known += (known.empty() ? "" : ", ") + std::string(ggml_type_name(type));
    }
    throw Error(ErrorCode::invalid_argument, "KV cache type: '" + name + "' is not one of " + known);
}

// Restores a flag-like member when a scope ends, however it ends.
template <typename Action>
class ScopeExit {
  public:
    explicit ScopeExit(Action action) : action_(std::move(action)) {}
    ~ScopeExit() { action_(); }
    ScopeExit(const ScopeExit&) = delete;
    ScopeExit& operator=(const ScopeExit&) = delete;

  private:
    Action action_;
};

}  // namespace

const char* stop_name(Stop stop) noexcept {
    switch (stop) {
        case Stop::eog:
            return "eog";
        case Stop::length:
            return "length";
        case Stop::cancelled:
            return "cancelled";
        case Stop::sink:
            return "sink";
    }
    return "unknown";
}

Context::Context(std::shared_ptr<Model> model, const ContextOptions& o)
    : model_(std::move(model)), n_batch_(std::max(o.n_batch, 1)) {
    if (o.n_ctx < 0) throw Error(ErrorCode::invalid_argument, "context: n_ctx must be 0 or more");
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(o.n_ctx);
    params.n_batch = static_cast<uint32_t>(n_batch_);
    params.n_ubatch = static_cast<uint32_t>(n_batch_);
    params.n_seq_max = 1;
    if (o.n_threads > 0) {
        params.n_threads = o.n_threads;
        params.n_threads_batch = o.n_threads_batch > 0 ? o.n_threads_batch : o.n_threads;
    }
    params.flash_attn_type = static_cast<llama_flash_attn_type>(std::clamp(o.flash_attn, -1, 1));
    params.type_k = kv_type(o.type_k);
    params.type_v = kv_type(o.type_v);
    params.offload_kqv = o.offload_kqv;
    params.no_perf = true;
    params.abort_callback = [](void* self) { return static_cast<Context*>(self)->stopping(); };
    params.abort_callback_data = this;
    clear_last_error();
    try {
        context_.reset(llama_init_from_model(model_->handle(), params));
    } catch (const std::exception& error) {
        throw Error(ErrorCode::engine, std::string("context: llama.cpp can't create it: ") + error.what());
    }
    if (!context_) {
        const std::string reason = last_error();
        throw Error(ErrorCode::engine, "context: llama.cpp can't create one of " + std::to_string(o.n_ctx) +
                                           " tokens: " + (reason.empty() ? "no reason given" : reason));
    }
}

Context::~Context() = default;

bool Context::stopping() {
    if (cancel_.load(std::memory_order_relaxed)) return true;
    if (poll_ != nullptr && *poll_ && (*poll_)()) polled_stop_ = true;
    return polled_stop_;
}

void Context::clear() {
    llama_memory_clear(llama_get_memory(context_.get()), true);
    cached_.clear();
}

void Context::drop_after(std::size_t keep) {
    // Caches that can't be cut (recurrent, hybrid, sliding-window) refuse; they start over.
    if (keep > 0 && llama_memory_seq_rm(llama_get_memory(context_.get()), 0, static_cast<llama_pos>(keep), -1)) {
        cached_.resize(std::min(keep, cached_.size()));
        return;
    }
    clear();
}

int Context::reuse_prefix(const std::vector<llama_token>& prompt) {
    const auto differ = std::mismatch(cached_.begin(), cached_.end(), prompt.begin(), prompt.end());
    const auto common = static_cast<std::size_t>(differ.first - cached_.begin());
    // The last prompt token is always computed: its logits are needed.
    const std::size_t keep = std::min(common, prompt.size() - 1);
    if (keep < cached_.size()) drop_after(keep);
    return static_cast<int>(cached_.size());
}

bool Context::decode(const llama_token* tokens, int count) {
    for (int done = 0; done < count;) {
        if (stopping()) return false;
        const int size = std::min(n_batch_, count - done);
        // llama_batch_get_one does not write through the pointer.
        llama_batch batch = llama_batch_get_one(const_cast<llama_token*>(tokens + done), size);
        int status = 0;
        const std::size_t before = cached_.size();
        try {
            status = llama_decode(context_.get(), batch);
        } catch (const std::exception& error) {
            clear();
            throw Error(ErrorCode::engine, std::string("decode: llama.cpp stopped: ") + error.what());
        }
        if (status != 0) {
            drop_after(before);  // a part of the batch may be in the cache
            if (status == 2) return false;
            throw Error(ErrorCode::engine, "decode: llama.cpp returned " + std::to_string(status) + " at token " +
                                               std::to_string(before) + " of " + std::to_string(n_ctx()) +
                                               (status == 1 ? " (no room in the cache)" : ""));
        }
        cached_.insert(cached_.end(), tokens + done, tokens + done + size);
        done += size;
    }
    return true;
}

Generation Context::generate(const std::vector<llama_token>& prompt, const GenerateOptions& options,
                             const TextSink& sink, const StopPoll& poll) {
    const std::unique_lock<std::mutex> lock(busy_, std::try_to_lock);
    if (!lock.owns_lock()) throw Error(ErrorCode::engine, "context: in use by another thread");
    if (prompt.empty()) throw Error(ErrorCode::invalid_argument, "generate: the prompt is empty");
    if (options.max_tokens < 1) throw Error(ErrorCode::invalid_argument, "generate: max_tokens must be 1 or more");
    const std::size_t needed = prompt.size() + static_cast<std::size_t>(options.max_tokens);
    if (needed > static_cast<std::size_t>(n_ctx())) {
        throw Error(ErrorCode::context_full,
                    "context: the prompt has " + std::to_string(prompt.size()) + " tokens and the answer may take " +
                        std::to_string(options.max_tokens) + ", the context holds " + std::to_string(n_ctx()));
    }
    for (const llama_token token : prompt) {
        if (token < 0 || token >= model_->n_vocab()) {
            throw Error(ErrorCode::invalid_argument,
                        "generate: token " + std::to_string(token) + " is not in the vocabulary");
        }
    }
    std::unique_ptr<Constraint> constraint;
    if (options.grammar) {
        constraint = make_matcher_constraint(*model_, options.grammar);
    } else if (!options.llama_grammar.empty()) {
        constraint = make_llama_constraint(*model_, options.llama_grammar, "root");
    }
    if (constraint && constraint->cost_to_end() > options.max_tokens) {
        throw Error(ErrorCode::grammar, "grammar: the shortest document takes up to " +
                                            std::to_string(constraint->cost_to_end()) + " tokens, max_tokens is " +
                                            std::to_string(options.max_tokens));
    }
    Sampler sampler(*model_, options.sampling);

    poll_ = &poll;
    polled_stop_ = false;
    const ScopeExit reset([this] {
        poll_ = nullptr;
        resume();
    });

    Generation out;
    Utf8Stream stream;
    out.n_prompt = static_cast<int>(prompt.size());
    out.n_reused = reuse_prefix(prompt);

    // Puts tokens into the answer; false if the reader wants no more.
    const auto write = [&](const std::vector<llama_token>& tokens) {
        std::string bytes;
        for (const llama_token token : tokens) bytes += model_->piece(token, true);
        out.tokens.insert(out.tokens.end(), tokens.begin(), tokens.end());
        out.text += bytes;
        if (!sink) return true;
        const std::string ready = stream.push(bytes);
        return ready.empty() || sink(ready);
    };
    const auto remaining = [&] { return options.max_tokens - static_cast<int>(out.tokens.size()); };

    // What is decoded next: the rest of the prompt first, and whatever the document must begin with.
    std::vector<llama_token> next(prompt.begin() + out.n_reused, prompt.end());
    bool reading = true;
    if (constraint && options.force) {
        const Determined start = constraint->determine(0, options.max_tokens);
        out.n_forced += static_cast<int>(start.tokens.size());
        reading = write(start.tokens);
        for (const llama_token token : start.tokens) {
            sampler.accept(token);
            next.push_back(token);
        }
    }
    const auto prefill_start = Clock::now();
    const bool prefilled = decode(next.data(), static_cast<int>(next.size()));
    out.n_prefilled = std::min(static_cast<int>(cached_.size()), out.n_prompt) - out.n_reused;
    out.ms_prefill = ms_since(prefill_start);
    if (!prefilled) {
        out.stop = Stop::cancelled;
        return out;
    }

    out.stop = reading ? Stop::length : Stop::sink;
    while (reading) {
        if (constraint && constraint->closed()) {
            out.stop = Stop::eog;
            break;
        }
        if (remaining() == 0) {
            if (constraint && constraint->complete()) out.stop = Stop::eog;
            break;
        }
        if (stopping()) {
            out.stop = Stop::cancelled;
            break;
        }
        const auto sample_start = Clock::now();
        float* logits = llama_get_logits_ith(context_.get(), -1);
        if (logits == nullptr) throw Error(ErrorCode::engine, "decode: llama.cpp returned no logits");
        const llama_token token = sampler.sample(logits, constraint.get(), remaining());
        if (llama_vocab_is_eog(model_->vocab(), token)) {
            out.stop = Stop::eog;
            out.ms_sample += ms_since(sample_start);
            break;
        }
        next.assign(1, token);
        if (constraint) {
            constraint->accept(token);
            if (options.force) {
                // The sampled token is not decoded yet, so recutting it with what must follow costs nothing.
                const Determined forced = constraint->determine(1, remaining() - 1);
                next.resize(1 - forced.replace);
                next.insert(next.end(), forced.tokens.begin(), forced.tokens.end());
                out.n_forced += static_cast<int>(next.size()) - 1;
            }
        }
        for (const llama_token taken : next) sampler.accept(taken);
        out.ms_sample += ms_since(sample_start);
        if (!write(next)) {
            out.stop = Stop::sink;
            break;
        }
        if (constraint && constraint->closed()) continue;  // nothing follows: its KV is not needed now
        const auto decode_start = Clock::now();
        const bool decoded = decode(next.data(), static_cast<int>(next.size()));
        out.ms_decode += ms_since(decode_start);
        if (!decoded) {
            out.stop = Stop::cancelled;
            break;
        }
    }
    out.n_resampled = sampler.resampled();
    if (sink && out.stop != Stop::sink) {
        const std::string rest = stream.flush();
        if (!rest.empty()) sink(rest);
    }
    return out;
}

}  // namespace ltm
