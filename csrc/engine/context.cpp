#include "engine/context.h"

#include <ggml.h>

#include <algorithm>
#include <chrono>

#include "engine/backend.h"
#include "support/error.h"

namespace ltm {
namespace {

using Clock = std::chrono::steady_clock;

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

class Context::Memory final : public KvMemory {
  public:
    Memory(llama_memory_t memory, const llama_model* model)
        : memory_(memory), can_cut_(!llama_model_is_recurrent(model) && !llama_model_is_hybrid(model)) {}

    bool remove(int seq, int from, int to) override { return llama_memory_seq_rm(memory_, seq, from, to); }
    void copy(int source, int target, int from, int to) override {
        llama_memory_seq_cp(memory_, source, target, from, to);
    }
    void shift(int seq, int from, int to, int delta) override { llama_memory_seq_add(memory_, seq, from, to, delta); }
    void clear() override { llama_memory_clear(memory_, true); }
    [[nodiscard]] bool can_shift() const override { return can_cut_ && llama_memory_can_shift(memory_); }
    [[nodiscard]] bool can_cut() const override { return can_cut_; }

  private:
    llama_memory_t memory_;
    bool can_cut_;
};

Context::Context(std::shared_ptr<Model> model, const ContextOptions& o)
    : model_(std::move(model)),
      states_(1),
      n_batch_(std::max(o.n_batch, 1)),
      n_outputs_(std::min(n_batch_, 128)),
      n_seq_max_(o.n_seq_max) {
    if (o.n_ctx < 0) throw Error(ErrorCode::invalid_argument, "context: n_ctx must be 0 or more");
    if (n_seq_max_ < 2 || n_seq_max_ > 256) {
        throw Error(ErrorCode::invalid_argument, "context: n_seq_max must be 2 to 256");
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(o.n_ctx);
    params.n_batch = static_cast<uint32_t>(n_batch_);
    params.n_ubatch = static_cast<uint32_t>(n_batch_);
    params.n_seq_max = static_cast<uint32_t>(n_seq_max_);
    params.kv_unified = true;
    // Rows of logits that a batch may ask for; the default, one for each token, costs n_batch x n_vocab floats.
    n_outputs_ = std::max(n_outputs_, 2 * n_seq_max_);
    params.n_outputs_max = static_cast<uint32_t>(n_outputs_);
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
    const LogScope scope;
    clear_last_error();
    try {
        context_.reset(llama_init_from_model(model_->handle(), params));
    } catch (const std::exception& error) {
        throw Error(ErrorCode::engine, std::string("context: llama.cpp can't create it: ") + error.what());
    }
    if (!context_) {
        const std::string reason = last_error();
        throw Error(ErrorCode::engine, "context: llama.cpp can't create one of " + std::to_string(o.n_ctx) +
                                           " tokens: " + (reason.empty() ? "no reason given" : reason) +
                                           "; take a smaller ctx");
    }
    memory_ = std::make_unique<Memory>(llama_get_memory(context_.get()), model_->handle());
    cache_ = std::make_unique<SequenceCache>(*memory_, n_seq_max_);
}

Context::~Context() = default;

Context::Pass::Pass(Context& context, const StopPoll* poll)
    : context_(context), lock_(context.busy_, std::try_to_lock) {
    if (!lock_.owns_lock()) throw Error(ErrorCode::engine, "context: in use by another thread");
    context_.poll_ = poll;
    context_.polled_stop_ = false;
}

Context::Pass::~Pass() {
    if (context_.poll_ != nullptr) context_.resume();
    context_.poll_ = nullptr;
    Figures& figures = context_.figures_;
    figures.cached = static_cast<int>(context_.cache_->longest());
    figures.sequences = context_.cache_->live();
    figures.leased = context_.cache_->leased();
    figures.adapter_changes = context_.adapter_changes_;
    figures.adapter_ms = context_.adapter_ms_;
}

bool Context::can_shift() const { return memory_->can_shift(); }
bool Context::can_cut() const { return memory_->can_cut(); }

bool Context::stopping() {
    if (cancel_.load(std::memory_order_relaxed)) return true;
    if (poll_ != nullptr && *poll_ && (*poll_)()) polled_stop_ = true;
    return polled_stop_;
}

void Context::clear() {
    const Pass pass(*this);
    cache_->clear();
}

void Context::check_tokens(const std::vector<llama_token>& tokens, const char* what) const {
    for (const llama_token token : tokens) {
        if (token < 0 || token >= model_->n_vocab()) {
            throw Error(ErrorCode::invalid_argument,
                        std::string(what) + ": token " + std::to_string(token) + " is not in the vocabulary");
        }
    }
}

std::size_t Context::check_room(std::vector<const std::vector<llama_token>*> prompts, std::size_t more) const {
    std::sort(prompts.begin(), prompts.end(), [](const auto* a, const auto* b) { return *a < *b; });
    std::size_t needed = 0;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        needed += prompts[i]->size();
        if (i == 0) continue;
        const auto differ =
            std::mismatch(prompts[i]->begin(), prompts[i]->end(), prompts[i - 1]->begin(), prompts[i - 1]->end());
        needed -= static_cast<std::size_t>(differ.first - prompts[i]->begin());
    }
    if (needed + more > static_cast<std::size_t>(n_ctx())) {
        throw Error(ErrorCode::context_full,
                    "context: " + std::string(prompts.size() == 1 ? "the prompt has " : "the prompts have together ") +
                        std::to_string(needed) + " tokens and the " + (prompts.size() == 1 ? "answer" : "answers") +
                        " may take " + std::to_string(more) + ", the context holds " + std::to_string(n_ctx()));
    }
    return needed;
}

StateId Context::id_of(const AdapterState& adapters) {
    for (const AdapterState::Lora& lora : adapters.loras) {
        if (&lora.adapter->model() != model_.get()) {
            throw Error(ErrorCode::invalid_argument, "adapter: it was loaded for another model");
        }
    }
    if (adapters.control) {
        const ControlVector& control = *adapters.control;
        const int n_embd = llama_model_n_embd(model_->handle());
        const int rows = llama_model_n_layer(model_->handle()) - 1;
        const auto values = static_cast<std::size_t>(n_embd) * static_cast<std::size_t>(rows);
        if (control.n_embd != n_embd || control.data.size() != values) {
            throw Error(ErrorCode::invalid_argument, "control vector: " + std::to_string(control.data.size()) +
                                                         " values in rows of " + std::to_string(control.n_embd) +
                                                         ", this model takes " + std::to_string(rows) + " rows of " +
                                                         std::to_string(n_embd));
        }
    }
    const auto known = std::find(states_.begin(), states_.end(), adapters);
    if (known != states_.end()) return static_cast<StateId>(known - states_.begin());
    states_.push_back(adapters);
    return static_cast<StateId>(states_.size() - 1);
}

void Context::apply(const AdapterState& adapters) {
    const StateId id = id_of(adapters);
    if (id == applied_) return;
    const auto start = Clock::now();
    std::vector<llama_adapter_lora*> handles;
    std::vector<float> scales;
    for (const AdapterState::Lora& lora : adapters.loras) {
        handles.push_back(lora.adapter->handle());
        scales.push_back(static_cast<float>(lora.scale) / AdapterState::kSteps);
    }
    const bool controlled = applied_ == kUnknown || states_[applied_].control;
    applied_ = kUnknown;
    int status = 0;
    try {
        status = llama_set_adapters_lora(context_.get(), handles.data(), handles.size(), scales.data());
        if (status == 0 && adapters.control) {
            const ControlVector& control = *adapters.control;
            std::vector<float> scaled(control.data);
            for (float& value : scaled) value *= static_cast<float>(adapters.control_scale) / AdapterState::kSteps;
            status = llama_set_adapter_cvec(context_.get(), scaled.data(), scaled.size(), control.n_embd, 1,
                                            llama_model_n_layer(model_->handle()));
        } else if (status == 0 && controlled) {
            status = llama_set_adapter_cvec(context_.get(), nullptr, 0, 0, 0, 0);
        }
    } catch (const std::exception& error) {
        throw Error(ErrorCode::engine, std::string("adapter: llama.cpp stopped: ") + error.what());
    }
    if (status != 0) throw Error(ErrorCode::engine, "adapter: llama.cpp returned " + std::to_string(status));
    applied_ = id;
    ++adapter_changes_;
    adapter_ms_ += std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

void Context::set_base(const AdapterState& adapters) {
    const Pass pass(*this);
    base_ = id_of(adapters);
}

float* Context::logits(std::size_t row) {
    float* values = llama_get_logits_ith(context_.get(), static_cast<int32_t>(row));
    if (values == nullptr) throw Error(ErrorCode::engine, "decode: llama.cpp returned no logits");
    return values;
}

bool Context::decode(std::vector<Piece>& pieces) {
    if (stopping()) return false;
    std::size_t total = 0;
    for (const Piece& piece : pieces) total += piece.count;
    if (total == 0) return true;

    std::vector<llama_token> tokens;
    std::vector<llama_pos> positions;
    std::vector<int32_t> counts(total, 1);
    std::vector<llama_seq_id> ids(total);
    std::vector<llama_seq_id*> id_pointers(total);
    std::vector<std::int8_t> wanted;
    tokens.reserve(total);
    positions.reserve(total);
    wanted.reserve(total);
    for (Piece& piece : pieces) {
        piece.row = tokens.size();
        const std::size_t past = cache_->length(piece.seq);
        for (std::size_t i = 0; i < piece.count; ++i) {
            ids[tokens.size()] = piece.seq;
            id_pointers[tokens.size()] = &ids[tokens.size()];
            tokens.push_back(piece.tokens[i]);
            positions.push_back(static_cast<llama_pos>(past + i));
            wanted.push_back(i >= piece.logits_from ? 1 : 0);
        }
    }
    llama_batch batch{};
    batch.n_tokens = static_cast<int32_t>(total);
    batch.token = tokens.data();
    batch.pos = positions.data();
    batch.n_seq_id = counts.data();
    batch.seq_id = id_pointers.data();
    batch.logits = wanted.data();

    int status = 0;
    try {
        // No room: what is cached and not in use goes, one sequence after the other.
        do {
            status = llama_decode(context_.get(), batch);
        } while (status == 1 && cache_->evict());
    } catch (const std::exception& error) {
        cache_->clear();
        throw Error(ErrorCode::engine, std::string("decode: llama.cpp stopped: ") + error.what());
    }
    if (status == 0) {
        for (const Piece& piece : pieces) cache_->append(piece.seq, piece.tokens, piece.count, applied_);
        return true;
    }
    for (const Piece& piece : pieces) cache_->truncate(piece.seq, cache_->length(piece.seq));  // parts may be in the KV
    if (status == 2) return false;
    if (status == 1) {
        throw Error(ErrorCode::context_full, "context: no room for " + std::to_string(total) +
                                                 " more tokens, the context holds " + std::to_string(n_ctx()));
    }
    throw Error(ErrorCode::engine, "decode: llama.cpp returned " + std::to_string(status));
}

bool Context::prefill(int seq, const std::vector<llama_token>& tokens, std::size_t leave) {
    const std::size_t end = tokens.size() - std::min(leave, tokens.size());
    while (cache_->length(seq) < end) {
        const std::size_t from = cache_->length(seq);
        const std::size_t count = std::min(end - from, static_cast<std::size_t>(n_batch_));
        std::vector<Piece> piece{{seq, tokens.data() + from, count, count}};
        if (!decode(piece)) return false;
    }
    return true;
}

Commit Context::commit(const std::vector<llama_token>& tokens, const StopPoll& poll) {
    const Pass pass(*this, &poll);
    check_tokens(tokens, "commit");
    check_room({&tokens}, 0);
    Commit out;
    if (tokens.empty()) {
        out.complete = true;
        return out;
    }
    apply(states_[base_]);
    SequenceCache::Lease lease = cache_->branch(tokens, tokens.size(), base_, base_);
    lease.keep();
    out.n_reused = static_cast<int>(cache_->length(lease.seq()));
    out.complete = prefill(lease.seq(), tokens, 0);
    out.n_prefilled = static_cast<int>(cache_->length(lease.seq())) - out.n_reused;
    cache_->make_spine(lease.seq());
    return out;
}

std::size_t Context::rebase(const std::vector<llama_token>& tokens, std::size_t keep, std::size_t count) {
    const Pass pass(*this);
    return cache_->rebase(tokens, keep, count, base_);
}

Context::Saved Context::save(const std::vector<llama_token>& tokens) {
    const Pass pass(*this);
    SequenceCache::Lease lease = cache_->branch(tokens, tokens.size(), base_, base_);
    Saved out;
    out.n = cache_->length(lease.seq());
    if (out.n == 0) return out;
    try {
        out.bytes.resize(llama_state_seq_get_size(context_.get(), lease.seq()));
        const std::size_t written =
            llama_state_seq_get_data(context_.get(), out.bytes.data(), out.bytes.size(), lease.seq());
        out.bytes.resize(written);
    } catch (const std::exception& error) {
        throw Error(ErrorCode::engine, std::string("state: llama.cpp can't save it: ") + error.what());
    }
    return out;
}

bool Context::restore(const std::vector<llama_token>& tokens, const std::uint8_t* bytes, std::size_t size) {
    const Pass pass(*this);
    check_tokens(tokens, "restore");
    if (tokens.empty() || tokens.size() > static_cast<std::size_t>(n_ctx())) return false;
    apply(states_[base_]);
    SequenceCache::Lease lease = cache_->branch({}, 0, base_, base_);
    std::size_t read = 0;
    try {
        // What is cached gives way only where there may be no room: bytes that llama.cpp refuses cost nothing.
        do {
            read = llama_state_seq_set_data(context_.get(), bytes, size, lease.seq());
        } while (read == 0 && cache_->held() + tokens.size() > static_cast<std::size_t>(n_ctx()) && cache_->evict());
    } catch (const std::exception&) {
        read = 0;
    }
    const auto last = llama_memory_seq_pos_max(llama_get_memory(context_.get()), lease.seq());
    if (read != size || last + 1 != static_cast<llama_pos>(tokens.size())) return false;
    cache_->append(lease.seq(), tokens.data(), tokens.size(), base_);
    lease.keep();
    return true;
}

}  // namespace ltm
