// linnet: the command.
#include <fmt/format.h>

#include "core/error.h"
#include "interrupt.h"
#include "io/text.h"
#include "verbs.h"

namespace {

// Messages may quote what was typed or what a file says: they must stay one line and leave the terminal alone.
int failed(const char* what, int code) {
  fmt::print(stderr, "linnet: {}\n", linnet::printable(what, 4000));
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace linnet;
  CLI::App app("Linear diffusion transformers: train, convert and paint, without Python.", "linnet");
  app.set_version_flag("--version", "linnet " LINNET_VERSION);
  app.require_subcommand(1);
  app::add_generate(app);
  app::add_train(app);
  app::add_data(app);
  app::add_bench(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& wish) {  // --help, --version
    return app.exit(wish);
  } catch (const CLI::ParseError& error) {
    failed(error.what(), 2);
    fmt::print(stderr, "Try \"linnet --help\".\n");
    return 2;
  } catch (const UsageError& error) {
    return failed(error.what(), 2);
  } catch (const std::bad_alloc&) {
    return failed("out of memory", 1);
  } catch (const std::exception& error) {
    return failed(error.what(), 1);
  } catch (const app::Interrupted& interruption) {
    return interruption.exit_code;
  }
}
