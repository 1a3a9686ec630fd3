#include "engine/adapter.h"

#include <algorithm>
#include <cmath>

#include "engine/backend.h"
#include "support/error.h"

namespace ltm {
namespace {

int steps(float scale) {
    if (!std::isfinite(scale) || std::abs(scale) > 64.0F) {
        throw Error(ErrorCode::invalid_argument,
                    "adapter: scale " + std::to_string(scale) + " is out of range; give -64 to 64");
    }
    return static_cast<int>(std::lround(scale * AdapterState::kSteps));
}

}  // namespace

std::shared_ptr<Adapter> Adapter::load(std::shared_ptr<Model> model, const std::string& path) {
    const LogScope scope;
    clear_last_error();
    llama_adapter_lora* handle = nullptr;
    try {
        handle = llama_adapter_lora_init(model->handle(), path.c_str());
    } catch (const std::exception& error) {
        throw Error(ErrorCode::model, path + ": llama.cpp can't load this adapter: " + error.what());
    }
    if (handle == nullptr) {
        const std::string reason = last_error();
        throw Error(ErrorCode::model, path + ": llama.cpp can't load this adapter: " +
                                          (reason.empty() ? std::string("no reason given") : reason));
    }
    return std::shared_ptr<Adapter>(new Adapter(std::move(model), handle));
}

Adapter::~Adapter() { llama_adapter_lora_free(handle_); }

AdapterState AdapterState::make(std::vector<std::pair<std::shared_ptr<Adapter>, float>> loras,
                                std::shared_ptr<const ControlVector> control, float control_scale) {
    AdapterState out;
    for (auto& [adapter, scale] : loras) {
        if (!adapter) throw Error(ErrorCode::invalid_argument, "adapter: none given");
        const int quantised = steps(scale);
        if (quantised != 0) out.loras.push_back({std::move(adapter), quantised});
    }
    const auto before = [](const Lora& a, const Lora& b) { return a.adapter.get() < b.adapter.get(); };
    std::sort(out.loras.begin(), out.loras.end(), before);
    for (std::size_t i = 1; i < out.loras.size(); ++i) {
        if (out.loras[i].adapter == out.loras[i - 1].adapter) {
            throw Error(ErrorCode::invalid_argument, "adapter: the same one is given twice");
        }
    }
    if (control) {
        if (!std::all_of(control->data.begin(), control->data.end(), [](float x) { return std::isfinite(x); })) {
            throw Error(ErrorCode::invalid_argument, "control vector: it holds values that are not finite");
        }
        out.control_scale = steps(control_scale);
        if (out.control_scale != 0) out.control = std::move(control);
    }
    return out;
}

bool AdapterState::operator==(const AdapterState& other) const {
    if (loras != other.loras || control_scale != other.control_scale) return false;
    if (!control || !other.control) return !control && !other.control;
    return control == other.control || *control == *other.control;
}

}  // namespace ltm
