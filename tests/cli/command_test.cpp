// The command from outside: what it prints, and its exit codes.
#include "tests/cli/command.h"

#include <csignal>

#include "micromix/checkpoint/model_weights.h"
#include "micromix/kernels/cuda/devices.h"

namespace micromix {
namespace {

using ::testing::HasSubstr;
using testing::run_command;

const std::string kModel = MICROMIX_DEMO_MODEL;
const std::string kText = MICROMIX_DEMO_DATA "/wikitext-2/test.txt";

TEST(Command, HelpAndVersionSucceedAndBadUsageIsTwo) {
  EXPECT_EQ(run_command("--help").exit_code, 0);
  EXPECT_THAT(run_command("--version").out, HasSubstr("micromix 0."));
  for (const std::string name :
       {"calibrate", "quantize", "eval", "generate", "tokenize", "inspect", "export"}) {
    const auto help = run_command(name + " --help");
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_THAT(help.out, HasSubstr("MODEL"));
    EXPECT_THAT(help.out, HasSubstr("(required)"));
  }
  EXPECT_EQ(run_command("").exit_code, 2);
  EXPECT_EQ(run_command("nonsense").exit_code, 2);
  EXPECT_EQ(run_command("eval " + kModel).exit_code, 2);
  EXPECT_EQ(run_command("eval " + kModel + " --data " + kText + " --window 1").exit_code, 2);
  EXPECT_EQ(run_command("inspect /nowhere").exit_code, 2);
  EXPECT_EQ(run_command("quantize " + kModel + " -o /tmp/never --method paper").exit_code, 2);
  for (const std::string option : {"temperature nan", "temperature inf", "top-p nan"}) {
    EXPECT_EQ(run_command("generate " + kModel + " --prompt x --" + option).exit_code, 2) << option;
  }
  for (const std::string option : {"bits nan", "max-kl nan", "max-kl inf"}) {
    const std::string budget = " -o /tmp/never --method budget --data " + kText + " --";
    EXPECT_EQ(run_command("quantize " + kModel + budget + option).exit_code, 2) << option;
  }
  for (const std::string activations :
       {"e2m1=e4m3,", "e2m1=e4m3,e2m1=bf16", "e2m1=", "bf16,e4m3"}) {
    const std::string uniform = " -o /tmp/never --method uniform:e2m1 --activations ";
    EXPECT_EQ(run_command("quantize " + kModel + uniform + activations).exit_code, 2);
  }
  const auto method = run_command("quantize " + kModel + " -o /tmp/never --method best");
  EXPECT_EQ(method.exit_code, 2);
  EXPECT_THAT(method.err,
              HasSubstr("found 'best', expected paper, released, budget or uniform:FORMAT"));
  const auto lm_head =
      run_command("quantize " + kModel + " -o /tmp/never --method uniform:e2m1 --lm-head e5m2");
  EXPECT_EQ(lm_head.exit_code, 2);
  EXPECT_THAT(lm_head.err, HasSubstr("--lm-head: e5m2 not in {bf16,e2m1,e2m3,e3m2,e4m3}"));
}

TEST(Command, OutputThatCannotBeWrittenIsAFailure) {
  for (const std::string arguments :
       {"--version", "tokenize " MICROMIX_DEMO_MODEL " --text a",
        "generate " MICROMIX_DEMO_MODEL " --prompt a --max-new-tokens 2"}) {
    const int status =
        std::system(("'" MICROMIX_COMMAND "' " + arguments + " >/dev/full 2>&1").c_str());
    EXPECT_EQ(WEXITSTATUS(status), 1) << arguments;
  }
}

TEST(Command, RunsOnTheKernelsAskedFor) {
  const std::string eval = "eval " + kModel + " --data " + kText + " --window 64 --max-windows 1";
  EXPECT_EQ(run_command(eval, "MICROMIX_CPU=portable").exit_code, 0);
  EXPECT_EQ(run_command(eval + " --device reference").exit_code, 0);
  const auto unknown = run_command(eval, "MICROMIX_CPU=mmx");
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.err, HasSubstr("MICROMIX_CPU: found 'mmx', expected one of: "));
  for (const std::string device :
       {"tpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0x", "cuda:9999999999"}) {
    EXPECT_EQ(run_command(eval + " --device " + device).exit_code, 2) << device;
  }
  const auto beyond = run_command(eval + " --device cuda:4096");
  EXPECT_EQ(beyond.exit_code, 1);
  EXPECT_THAT(beyond.err, HasSubstr("CUDA"));
  const auto on_gpu = run_command(eval + " --device cuda");
  if (on_gpu.exit_code != 0) {  // there is none
    EXPECT_EQ(on_gpu.exit_code, 1);
    EXPECT_THAT(on_gpu.err, HasSubstr("CUDA"));
  }
}

TEST(Command, DevicesNamesCpuKernelsAndGpusOrWhyThereAreNone) {
  const auto result = run_command("devices", "MICROMIX_CPU=portable");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, ::testing::StartsWith("cpu      portable kernels"));
  const std::vector<kernels::cuda::GpuInfo> gpus = kernels::cuda::list_gpus();
  if (gpus.empty()) {
    EXPECT_THAT(result.out, HasSubstr("\ncuda     none: " + kernels::cuda::why_no_gpus() + "\n"));
    EXPECT_EQ(testing::lines_of(result.out), 2);
  }
  for (const kernels::cuda::GpuInfo& gpu : gpus) {
    EXPECT_THAT(result.out, HasSubstr(gpu.name));
    EXPECT_THAT(result.out, HasSubstr(gpu.problem));
  }
  EXPECT_EQ(run_command("devices", "MICROMIX_CPU=mmx").exit_code, 1);
}

TEST(Command, EvalPrintsOneJsonObject) {
  const auto result =
      run_command("eval " + kModel + " --data " + kText +
                  " --window 256 --max-windows 2 --reference " + kModel + " --json");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json.at("windows"), 2);
  EXPECT_EQ(json.at("tokens"), 2 * 255);
  EXPECT_EQ(json.at("average_bits"), 16.0);
  EXPECT_NEAR(json.at("kl").get<double>(), 0, 1e-12);
  EXPECT_EQ(json.at("top1"), 1.0);
  EXPECT_GT(json.at("perplexity").get<double>(), 5);
  EXPECT_LT(json.at("perplexity").get<double>(), 40);
}

TEST(Command, TokenizesBothWays) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "in.jsonl", "{\"text\": \"two\\nlines\"}\n{\"text\": \"\"}\n");
  const auto ids = run_command("tokenize " + kModel + " --jsonl " + (folder / "in.jsonl").string());
  ASSERT_EQ(ids.exit_code, 0) << ids.err;
  EXPECT_EQ(testing::lines_of(ids.out), 2);
  EXPECT_THAT(ids.out, ::testing::EndsWith("]\n[]\n"));
  const auto single = run_command("tokenize " + kModel + " --text 'The city'");
  const auto back = run_command("tokenize " + kModel + " --decode --text '" +
                                single.out.substr(0, single.out.size() - 1) + "'");
  EXPECT_EQ(back.out, "The city\n");
  testing::write_text(folder / "ids.jsonl", ids.out);
  const auto lines =
      run_command("tokenize " + kModel + " --decode --jsonl " + (folder / "ids.jsonl").string());
  EXPECT_EQ(lines.out, "\"two\\nlines\"\n\"\"\n");
  EXPECT_EQ(run_command("tokenize " + kModel + " --decode --text '[99999]'").exit_code, 1);
  EXPECT_EQ(run_command("tokenize " + kModel + " --decode --text '[1.5]'").exit_code, 1);
  EXPECT_EQ(run_command("tokenize " + kModel + " --text a --file b").exit_code, 2);
}

TEST(Command, TokenizeAddsSpecialTokensWhenAsked) {
  const std::filesystem::path model = testing::data("tokenizers/llama3-style");
  for (const Json& line : testing::read_jsonl(model / "golden.jsonl")) {
    if (line.at("text") != "Hello, world!") continue;
    const std::string tokenize = "tokenize " + model.string() + " --text 'Hello, world!'";
    EXPECT_EQ(Json::parse(run_command(tokenize).out), line.at("ids"));
    EXPECT_EQ(Json::parse(run_command(tokenize + " --special").out), line.at("ids_special"));
    return;
  }
  FAIL() << "no such golden";
}

TEST(Command, GenerateStopsAtAnyEosTokenUnlessTold) {
  const Json golden = testing::read_jsonl(testing::data("golden/qwen2-8m.greedy.jsonl"))[0];
  const Json& ids = golden.at("ids");
  const testing::ModelCopy model;
  model.edit("generation_config.json", [&](Json& json) { json["eos_token_id"] = {7, ids[2]}; });
  const std::filesystem::path prompt = model.path() / "prompt";
  testing::write_text(prompt, golden.at("prompt").get<std::string>());
  const std::string generate = "generate " + model.path().string() + " --prompt-file " +
                               prompt.string() + " --max-new-tokens " + std::to_string(ids.size());
  const auto two =
      run_command("tokenize " + kModel + " --decode --text '" + Json{ids[0], ids[1]}.dump() + "'");
  EXPECT_EQ(run_command(generate).out, two.out);
  EXPECT_EQ(run_command(generate + " --ignore-eos").out,
            golden.at("text").get<std::string>() + "\n");
}

TEST(Command, GeneratesGreedilyAndBySeed) {
  const std::string prompt = "generate " + kModel + " --prompt 'The city of' --max-new-tokens 8 ";
  const auto greedy = run_command(prompt);
  ASSERT_EQ(greedy.exit_code, 0) << greedy.err;
  EXPECT_THAT(greedy.out, HasSubstr("Zagataka"));  // as transformers continues it
  const std::string sampled = prompt + "--temperature 1 --top-k 50 --top-p 0.9 --seed ";
  EXPECT_EQ(run_command(sampled + "1").out, run_command(sampled + "1").out);
  EXPECT_NE(run_command(sampled + "1").out, run_command(sampled + "2").out);
  const auto too_long = run_command("generate " + kModel + " --prompt x --max-new-tokens 3000");
  EXPECT_EQ(too_long.exit_code, 1);
  EXPECT_THAT(too_long.err, HasSubstr("max_position_embeddings"));
  // Unless told how many, it writes what the context holds; the last token takes no place in it.
  const testing::ModelCopy small;
  small.edit("config.json", [](Json& json) { json["max_position_embeddings"] = 8; });
  const std::string three =
      "generate " + small.path().string() + " --ignore-eos --prompt 'The city of'";
  const auto fits = run_command(three + " --max-new-tokens 6");
  EXPECT_EQ(fits.exit_code, 0) << fits.err;
  EXPECT_EQ(run_command(three).out, fits.out);
  EXPECT_EQ(run_command(three + " --max-new-tokens 7").exit_code, 1);
}

TEST(Command, WholeWayThrough) {
  const testing::TemporaryFolder folder;
  const std::string stats = (folder / "stats").string();
  const std::string out = (folder / "out").string();
  const auto calibrated = run_command("calibrate " + kModel + " --data " + kText + " -o " + stats +
                                      " --samples 2 --length 256 --threads 2");
  ASSERT_EQ(calibrated.exit_code, 0) << calibrated.err;
  const auto quantized = run_command("quantize " + kModel + " -o " + out + " --stats " + stats +
                                     " --activations e2m1=e4m3,e3m2=bf16 --channel-group 64");
  ASSERT_EQ(quantized.exit_code, 0) << quantized.err;
  EXPECT_THAT(quantized.out, HasSubstr("average bits"));
  EXPECT_THAT(quantized.out, HasSubstr("relative output error  down_proj"));
  const auto inspected = run_command("inspect " + out);
  EXPECT_THAT(inspected.out, HasSubstr("e2m1=e4m3 e2m3=e2m3 e3m2=bf16 e4m3=e4m3"));
  EXPECT_THAT(inspected.out, HasSubstr("folded"));
  EXPECT_THAT(inspected.out, HasSubstr("text_hash"));
  ASSERT_EQ(run_command("export " + out + " --to bf16 -o " + out + "-bf16").exit_code, 0);
  const std::string eval = " --data " + kText + " --max-windows 1 --json";
  const Json a = Json::parse(run_command("eval " + out + eval).out);
  const Json b = Json::parse(run_command("eval " + out + "-bf16" + eval).out);
  EXPECT_LT(a.at("average_bits").get<double>(), 6);
  EXPECT_EQ(b.at("average_bits"), 16.0);
  // Quantizing again, or calibrating, what is quantized already is refused.
  EXPECT_THAT(run_command("quantize " + out + " -o " + out + "2 --method uniform:e2m1").err,
              HasSubstr("quantized already"));
  EXPECT_THAT(run_command("export " + kModel + " --to bf16 -o " + out + "3").err,
              HasSubstr("not quantized by micromix"));
}

TEST(Command, QuantizesTheLmHead) {
  const testing::TemporaryFolder folder;
  const std::string out = (folder / "out").string();
  const std::string quantize = "quantize " + kModel + " -o " + out + " --method uniform:e4m3";
  const auto quantized = run_command(quantize + " --lm-head e2m3");
  ASSERT_EQ(quantized.exit_code, 0) << quantized.err;
  EXPECT_THAT(quantized.out, HasSubstr("  without the lm_head  8.2500\n"));
  const auto inspected = run_command("inspect " + out);
  EXPECT_THAT(inspected.out,
              ::testing::ContainsRegex("lm_head +4096 +384 +- +384 +- +- +6\\.250\n"));
  EXPECT_THAT(inspected.out, HasSubstr("\"lm_head\":\"e2m3\""));
  const auto plain = run_command(quantize + " --force");
  EXPECT_THAT(plain.out, ::testing::Not(HasSubstr("without the lm_head")));
}

// What is bound to fail does so before anything is read, hashed or run.
TEST(Command, PlacesThatCannotBeWrittenFailFirst) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "empty", "");
  std::filesystem::create_directory(folder / "out");
  testing::write_text(folder / "out/file", "");
  const std::string data = " --data " + (folder / "empty").string() + " -o ";
  const auto refused = [&](const std::string& arguments, const std::string& expected) {
    const auto result = run_command(arguments);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.err, HasSubstr(expected));
  };
  refused("calibrate " + kModel + data + (folder / "none/stats").string(), "stats: cannot write");
  refused("quantize " + kModel + data + (folder / "out").string(), "exists and is not empty");
}

TEST(Command, InterruptedRunGoesOn) {
  const testing::TemporaryFolder folder;
  const std::string out = (folder / "out").string();
  const std::string partial = out + ".partial";
  // GPTQ takes longest between the first layer and the last.
  std::vector<std::string> arguments = {"quantize", kModel, "-o",        out,
                                        "--data",   kText,  "--samples", "8",
                                        "--length", "256",  "--weights", "gptq"};
  const pid_t child = testing::start_command(arguments, folder / "err");
  int status = 0;
  while (!std::filesystem::exists(partial + "/model-00002-of-00005.safetensors")) {
    ASSERT_EQ(::waitpid(child, &status, WNOHANG), 0) << read_file(folder / "err");
    ::usleep(1000);
  }
  ::kill(child, SIGINT);
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;
  EXPECT_THAT(read_file(folder / "err"), HasSubstr("interrupted: " + partial + " is kept"));
  EXPECT_FALSE(std::filesystem::exists(out));
  arguments.push_back("--resume");
  ::waitpid(testing::start_command(arguments, folder / "err"), &status, 0);
  EXPECT_EQ(status, 0) << read_file(folder / "err");
  EXPECT_TRUE(std::filesystem::exists(out + "/config.json"));
  EXPECT_FALSE(std::filesystem::exists(partial));
}

TEST(Command, ShortCalibrationTextWarns) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "text", read_file(kText).substr(0, 4000));
  const auto result =
      run_command("calibrate " + kModel + " --data " + (folder / "text").string() + " -o " +
                  (folder / "stats").string() + " --samples 99 --length 256 --threads 2");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("of 99 samples of 256 tokens"));
}

}  // namespace
}  // namespace micromix
