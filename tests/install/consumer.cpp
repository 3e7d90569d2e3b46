// Tokenizes and runs the model named on the command line.
#include <cstdio>

#include <micromix/model/model.h>
#include <micromix/model/text.h>

int main(int, char** argv) {
  const micromix::Model model(argv[1]);
  const auto tokenizer = micromix::load_tokenizer(argv[1], model.config());
  const auto ids = tokenizer->encode("The city of", /*add_special=*/true);
  micromix::Context context = model.make_context(static_cast<int64_t>(ids.size()));
  std::printf("%zu logits\n", model.next_logits(ids, context).size());
}
