// linnet: the command.
#include <fmt/format.h>

#include "core/error.h"
#include "verbs.h"

int main(int argc, char** argv) {
  using namespace linnet;
  CLI::App app("Linear diffusion transformers: train, convert and paint, without Python.", "linnet");
  app.set_version_flag("--version", "linnet " LINNET_VERSION);
  app.require_subcommand(1);
  app::add_train(app);
  app::add_data(app);
  app::add_bench(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& wish) {  // --help, --version
    return app.exit(wish);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "linnet: {}\nTry \"linnet --help\".\n", error.what());
    return 2;
  } catch (const UsageError& error) {
    fmt::print(stderr, "linnet: {}\n", error.what());
    return 2;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "linnet: out of memory\n");
    return 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "linnet: {}\n", error.what());
    return 1;
  }
}
