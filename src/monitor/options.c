#include "monitor/options.h"

#include <errno.h>
#include <getopt.h>

#include "base/str.h"

enum option_code {
        OPTION_ID = 256,
        OPTION_RUNTIME,
        OPTION_RUNTIME_ROOT,
        OPTION_CGROUP,
        OPTION_TTY,
        OPTION_IN,
        OPTION_IN_ONCE,
        OPTION_LOG,
        OPTION_LOG_MAX_BYTES,
        OPTION_LOG_MAX_FILES,
        OPTION_ROWS,
        OPTION_VM,
        OPTION_COLUMNS,
};

static const struct option long_options[] = {
        { "id", required_argument, NULL, OPTION_ID },
        { "runtime", required_argument, NULL, OPTION_RUNTIME },
        { "runtime-root", required_argument, NULL, OPTION_RUNTIME_ROOT },
        { "cgroup", required_argument, NULL, OPTION_CGROUP },
        { "vm", no_argument, NULL, OPTION_VM },
        { "tty", no_argument, NULL, OPTION_TTY },
        { "stdin", no_argument, NULL, OPTION_IN },
        { "stdin-once", no_argument, NULL, OPTION_IN_ONCE },
        { "log", required_argument, NULL, OPTION_LOG },
        { "log-max-bytes", required_argument, NULL, OPTION_LOG_MAX_BYTES },
        { "log-max-files", required_argument, NULL, OPTION_LOG_MAX_FILES },
        { "rows", required_argument, NULL, OPTION_ROWS },
        { "columns", required_argument, NULL, OPTION_COLUMNS },
        { NULL, 0, NULL, 0 },
};

static int parse_number(const char *text, uint64_t limit, uint64_t *ret, struct err *err)
{
        uint64_t value;
        if (str_to_u64(text, &value) < 0 || value > limit)
                return err_plain(err, EINVAL, "'%s' is not a number up to %llu", text,
                                 (unsigned long long)limit);
        *ret = value;
        return 0;
}

static int parse_option(int code, const char *value, struct monitor_options *o, struct err *err)
{
        uint64_t number = 0;
        int r = 0;
        switch (code) {
        case OPTION_ID:
                o->id = value;
                break;
        case OPTION_RUNTIME:
                o->runtime = value;
                break;
        case OPTION_RUNTIME_ROOT:
                o->runtime_root = value;
                break;
        case OPTION_CGROUP:
                o->cgroup = value;
                break;
        case OPTION_VM:
                o->vm = true;
                break;
        case OPTION_TTY:
                o->tty = true;
                break;
        case OPTION_IN:
                o->in = true;
                break;
        case OPTION_IN_ONCE:
                o->in_once = true;
                break;
        case OPTION_LOG:
                o->log_path = value;
                break;
        case OPTION_LOG_MAX_BYTES:
                r = parse_number(value, INT64_MAX, &o->log_max_bytes, err);
                break;
        case OPTION_LOG_MAX_FILES:
                r = parse_number(value, 1000, &number, err);
                o->log_max_files = (unsigned)number;
                break;
        case OPTION_ROWS:
                r = parse_number(value, UINT16_MAX, &number, err);
                o->rows = (uint16_t)number;
                break;
        case OPTION_COLUMNS:
                r = parse_number(value, UINT16_MAX, &number, err);
                o->columns = (uint16_t)number;
                break;
        default:
                return err_plain(err, EINVAL, "unknown option or missing value");
        }
        return r;
}

int monitor_options_parse(int argc, char **argv, struct monitor_options *ret, struct err *err)
{
        struct monitor_options options = { .log_max_files = 1 };
        if (argc < 2 || (!streq(argv[1], "run") && !streq(argv[1], "exec")))
                return err_plain(err, EINVAL,
                                 "expected 'run' or 'exec'; this program is started by isled");
        options.exec = streq(argv[1], "exec");
        optind = 0;
        opterr = 0;
        for (;;) {
                int code = getopt_long(argc - 1, argv + 1, "", long_options, NULL);
                if (code < 0)
                        break;
                int r = parse_option(code, optarg, &options, err);
                if (r < 0)
                        return r;
        }
        if (optind < argc - 1)
                return err_plain(err, EINVAL, "unexpected argument '%s'", argv[1 + optind]);
        if (str_empty(options.id) || str_empty(options.runtime) || str_empty(options.runtime_root))
                return err_plain(err, EINVAL, "--id, --runtime and --runtime-root are needed");
        *ret = options;
        return 0;
}
