#include "micromix/tokenizer/model_class.h"

namespace micromix {

ModelClass find_model_class(const std::filesystem::path& model) {
  const std::filesystem::path config = model / "config.json";
  if (!std::filesystem::exists(config)) return {};
  const Json json = read_json(config);
  const std::string type = JsonObject(json, config.string()).string_or("model_type", "");
  if (type != "qwen2" && type != "qwen3") return {};
  return {.nfc = true, .special_tokens = {"<|endoftext|>"}};
}

}  // namespace micromix
