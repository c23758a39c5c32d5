/* The first process of the jail; see guest.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "guest/clock.h"
#include "guest/guest.h"
#include "guest/network.h"
#include "guest/session.h"
#include "runtime/setup.h"
#include "runtime/start.h"
#include "runtime/sync.h"
#include "sys/process.h"
#include "sys/pty.h"
#include "sys/spawn.h"

#define READY_SOCKET    GUEST_SOCKET "_1025"
#define CONFIG_SIZE_MAX (2 * OCI_CONFIG_SIZE_MAX + 4096)
#define BOOT_TIMEOUT_MS 120000
#define WORDS_BYTES     4096           /* of the guest's console that are kept */
#define TAP_FD          ((size_t)3)    /* in the machine, the first of them */
#define AGENT_WORDS     "isle-agent: " /* in front of each line of its log */
#define GONE_CODE       255            /* the machine ended before its container did */
#define OOM_PAUSE_NS    (100 * NS_PER_MS)
#define SHARE_OPTION    AGENT_SHARE_TAG "=" GUEST_SHARE ",submounts"
#define SOCKET_OPTION   "path=" GUEST_DIRECTORY "/" GUEST_SOCKET

_Static_assert(AGENT_READY_PORT == 1025, "READY_SOCKET names it");

static const struct json_field config_fields[] = {
        JSON_FIELD(struct shim_config, "memoryBytes", JSON_UINT, memory_bytes, JSON_REQUIRED),
        JSON_FIELD(struct shim_config, "cpus", JSON_UINT, cpus, JSON_REQUIRED),
        JSON_FIELD(struct shim_config, "cpusMax", JSON_UINT, cpus_max, JSON_REQUIRED),
        JSON_FIELD(struct shim_config, "cpu", JSON_STRING, cpu, JSON_REQUIRED),
        JSON_FIELD(struct shim_config, "cpuModel", JSON_STRING, cpu_model, 0),
        JSON_FIELD(struct shim_config, "inside", JSON_STRING, inside, JSON_REQUIRED),
        JSON_FIELD(struct shim_config, "upper", JSON_STRING, upper, 0),
        JSON_FIELD(struct shim_config, "readOnly", JSON_BOOL, read_only, 0),
        JSON_FIELD(struct shim_config, "volatile", JSON_BOOL, is_volatile, 0),
        JSON_FIELD(struct shim_config, "terminal", JSON_BOOL, terminal, 0),
        JSON_FIELD(struct shim_config, "waits", JSON_BOOL, waits, 0),
};
const struct json_shape shim_config_shape = JSON_SHAPE("shim", struct shim_config, config_fields);

struct shim {
        struct shim_config config;
        int channel; /* to the runtime that created us; -1 when that is done */
        int directory_fd;
        int ready_listener;
        int start_listener; /* -1 */
        int taps[NETWORK_CARDS_MAX];
        size_t taps_length; /* 0 when the machine has them */
        char **cards;       /* its options for them */
        int signals;
        int console; /* what the machine says */
        pid_t vmm;
        bool vmm_ended;
        int vmm_code;
        struct clock_watch clock;
        pid_t comparing; /* the two clocks, or 0 */
        bool compare_again;
        struct buf words; /* the last of it */
        struct session session;
        bool launched;
        uint32_t oom_told;   /* of session.oom_kills */
        int64_t oom_next_ns; /* not before that is more told: a guest may say anything */
};

static int read_config(struct shim *shim, struct err *err)
{
        auto_free char *text = NULL;
        size_t size;
        shim->directory_fd = open(GUEST_DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (shim->directory_fd < 0)
                return err_set(err, errno, "open %s", GUEST_DIRECTORY);
        int r = file_read(shim->directory_fd, GUEST_CONFIG, CONFIG_SIZE_MAX, &text, &size, err);
        if (r == 0)
                r = json_decode_text(&shim_config_shape, text, size, &shim->config, err);
        return r;
}

static int listen_ready(struct shim *shim, struct err *err)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX,
                                       .sun_path = GUEST_DIRECTORY "/" READY_SOCKET };
        shim->ready_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (shim->ready_listener < 0 ||
            bind(shim->ready_listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            listen(shim->ready_listener, 1) < 0)
                return err_set(err, errno, "listen for the guest");
        return 0;
}

static void all_signals(struct shim *shim)
{
        static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGURG };
        sigset_t set;
        sigfillset(&set);
        for (size_t i = 0; i < ELEMENTS(own); i++)
                sigdelset(&set, own[i]);
        sigprocmask(SIG_BLOCK, &set, NULL);
        shim->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* They follow when the runtime has written the file. */
static int receive_taps(struct shim *shim, struct err *err)
{
        auto_network network = { 0 };
        char name[16];
        int r = sync_expect(shim->channel, SYNC_GO, err);
        if (r == 0)
                r = network_read(shim->directory_fd, &network, err);
        if (r == 0 && network.cards_length > NETWORK_CARDS_MAX)
                r = err_plain(err, E2BIG, NETWORK_FILE ": %zu cards", network.cards_length);
        for (; r == 0 && shim->taps_length < network.cards_length; shim->taps_length += r == 0)
                r = pty_receive_fd(shim->channel, &shim->taps[shim->taps_length], name,
                                   sizeof(name), NULL, err);
        for (size_t i = 0; r == 0 && i < shim->taps_length; i++) {
                strv_push(&shim->cards, "--net");
                strv_push_take(&shim->cards,
                               xasprintf("fd=%zu,mac=%s", TAP_FD + i, network.cards[i].mac));
        }
        return r;
}

static void add_command_line(const struct shim_config *config, char ***argv)
{
        auto_buf line = { 0 };
        buf_puts(&line, GUEST_KERNEL_ARGUMENTS);
        if (config->cpus_max > config->cpus) /* those can be set to work later */
                buf_printf(&line, " maxcpus=%u", config->cpus);
        if (config->upper)
                buf_printf(&line, " " AGENT_LAYERS "%s%s%s", config->upper,
                           config->read_only ? ",ro" : "", config->is_volatile ? ",volatile" : "");
        strv_push(argv, "--cmdline");
        strv_push(argv, buf_text(&line));
}

static void add_layers(const struct shim_config *config, char ***argv)
{
        strv_push(argv, "--disk");
        strv_push(argv, ROOT_IMAGE ",ro,format=raw");
        strv_push(argv, "--fs");
        strv_push_take(argv, xasprintf(AGENT_LAYERS_TAG "=" ROOT_ABOVE
                                                        ",exclusive,only=%s:" AGENT_WORK "%s",
                                       config->upper, config->read_only ? ",ro" : ""));
}

static void add_options(const struct shim *shim, char ***argv)
{
        const char *const fixed[] = {
                "isle-vmm",        "--no-reboot", "--kernel", "/isle/kernel", "--initrd",
                "/isle/initramfs", "--serial",    "stdio",    "--cpu",        shim->config.cpu,
        };
        for (size_t i = 0; i < ELEMENTS(fixed); i++)
                strv_push(argv, fixed[i]);
        if (shim->config.cpu_model) {
                strv_push(argv, "--cpu-model");
                strv_push(argv, shim->config.cpu_model);
        }
        strv_push(argv, "--fs");
        strv_push(argv, SHARE_OPTION);
        strv_push(argv, "--vsock");
        strv_push(argv, SOCKET_OPTION);
        strv_push(argv, "--api-socket");
        strv_push(argv, GUEST_CONTROL "/" GUEST_CONTROL_SOCKET);
        add_command_line(&shim->config, argv);
        if (shim->config.upper)
                add_layers(&shim->config, argv);
        strv_push(argv, "--cpus");
        strv_push_take(argv, xasprintf("%u", shim->config.cpus_max));
        strv_push(argv, "--memory");
        strv_push_take(argv, xasprintf("%juk", (uintmax_t)shim->config.memory_bytes / 1024));
        if (access(GUEST_TEMPLATE, F_OK) == 0) {
                strv_push(argv, "--memory-template");
                strv_push(argv, GUEST_TEMPLATE);
        }
        for (char **option = shim->cards; option && *option; option++)
                strv_push(argv, *option);
}

static int start_machine(struct shim *shim, struct err *err)
{
        int fds[2];
        auto_strv argv = NULL;
        if (pipe2(fds, O_CLOEXEC) < 0)
                return err_set(err, errno, "pipe");
        shim->console = fds[0];
        auto_fd write_end = fds[1];
        add_options(shim, &argv);
        struct spawn_fd child_fds[2 + NETWORK_CARDS_MAX] = { { write_end, 1 }, { write_end, 2 } };
        for (size_t i = 0; i < shim->taps_length; i++)
                child_fds[2 + i] = (struct spawn_fd){ shim->taps[i], (int)(TAP_FD + i) };
        struct spawn spawn = { .path = "/isle/isle-vmm",
                               .argv = argv,
                               .fds = child_fds,
                               .fds_length = 2 + shim->taps_length,
                               .new_session = true,
                               .death_signal = SIGKILL };
        int r = spawn_process(&spawn, &shim->vmm, NULL, err);
        while (shim->taps_length > 0) /* their only holder is the machine */
                close_fd(&shim->taps[--shim->taps_length]);
        return r;
}

static void listen_to_console(struct shim *shim)
{
        ssize_t n = read(shim->console, buf_reserve(&shim->words, WORDS_BYTES), WORDS_BYTES);
        if (n > 0)
                buf_commit(&shim->words, (size_t)n);
        else if (n == 0 || errno != EINTR)
                close_fd(&shim->console);
        if (shim->words.size > 2 * WORDS_BYTES)
                buf_consume(&shim->words, shim->words.size - WORDS_BYTES);
}

static int tell_death(struct shim *shim, struct err *err)
{
        while (shim->console >= 0) /* its last words; it is dead, so they have an end */
                listen_to_console(shim);
        size_t size = shim->words.size;
        while (size > 0 &&
               (shim->words.data[size - 1] == '\n' || shim->words.data[size - 1] == '\r'))
                shim->words.data[--size] = '\0';
        const char *line = size ? strrchr(shim->words.data, '\n') : NULL;
        line = line ? line + 1 : buf_text(&shim->words);
        /* The agent's own words, where the kernel has some more behind them. */
        for (const char *at = buf_text(&shim->words); (at = strstr(at, AGENT_WORDS)); at++)
                line = at;
        return err_plain(err, ECONNRESET, "the virtual machine ended with status %d: %.*s",
                         shim->vmm_code, (int)strcspn(line, "\r\n"), line);
}

static void reap(struct shim *shim)
{
        int status;
        pid_t pid;
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
                if (pid == shim->vmm) {
                        shim->vmm_ended = true;
                        shim->vmm_code = process_exit_code(status);
                } else if (pid == shim->comparing) {
                        shim->comparing = 0;
                }
}

static int take_signal(struct shim *shim, struct err *err)
{
        struct signalfd_siginfo info;
        if (read(shim->signals, &info, sizeof(info)) != sizeof(info))
                return 0;
        if (info.ssi_signo == SIGCHLD) {
                reap(shim);
                return 0;
        }
        if (!shim->launched)
                return 0;
        if (info.ssi_signo == SIGWINCH && shim->config.terminal)
                return session_resize(&shim->session, err);
        return session_signal(&shim->session, (int)info.ssi_signo, err);
}

static int await_guest(struct shim *shim, struct err *err)
{
        int64_t deadline_ns = clock_monotonic_ns() + BOOT_TIMEOUT_MS * NS_PER_MS;
        for (;;) {
                struct pollfd entries[] = { { shim->ready_listener, POLLIN, 0 },
                                            { shim->signals, POLLIN, 0 },
                                            { shim->console, POLLIN, 0 } };
                int64_t left_ms = (deadline_ns - clock_monotonic_ns()) / NS_PER_MS;
                if (left_ms <= 0)
                        return err_plain(err, ETIMEDOUT, "the guest did not start within %d s",
                                         BOOT_TIMEOUT_MS / 1000);
                if (poll(entries, ELEMENTS(entries), (int)left_ms) < 0 && errno != EINTR)
                        return err_set(err, errno, "poll");
                if (entries[0].revents)
                        break;
                if (entries[1].revents)
                        (void)take_signal(shim, NULL);
                if (entries[2].revents)
                        listen_to_console(shim);
                if (shim->vmm_ended)
                        return tell_death(shim, err);
        }
        /* Nobody else is to come there. */
        int fd = accept4(shim->ready_listener, NULL, NULL, 0);
        close_fd(&shim->ready_listener);
        return fd < 0 ? err_set(err, errno, "accept the guest") : 0;
}

static int launch(struct shim *shim, struct err *err)
{
        static char *const argv[] = { "create",     "--no-pivot", "--bundle",
                                      AGENT_BUNDLE, GUEST_ID,     NULL };
        struct agent_request request = { .op = AGENT_OP_LAUNCH,
                                         .argv = (char **)(uintptr_t)argv,
                                         .config = shim->config.inside,
                                         .terminal = shim->config.terminal };
        if (shim->config.terminal) {
                struct termios saved; /* goes with the terminal, which is ours alone */
                request.plain_newlines = pty_has_plain_newlines(0);
                int r = pty_make_raw(0, &saved, err);
                if (r == 0) /* the guest's has done it */
                        r = pty_plain_newlines(0, err);
                if (r < 0)
                        return r;
        }
        int r = session_open(&shim->session, shim->directory_fd, &request, err);
        shim->launched = r == 0;
        return r;
}

/* The devices that there are now, which may be more than at the creation. */
static int give_cards(struct shim *shim, struct err *err)
{
        auto_network network = { 0 };
        struct agent_card cards[NETWORK_CARDS_MAX];
        size_t length = 0;
        int r = network_read(shim->directory_fd, &network, err);
        for (size_t i = 0; r == 0 && i < network.cards_length && length < ELEMENTS(cards); i++)
                if (network.cards[i].device.index)
                        cards[length++] = (struct agent_card){ network.cards[i].mac,
                                                               network.cards[i].device };
        if (r < 0 || length == 0)
                return r;
        return session_give_cards(&shim->session, shim->directory_fd, cards, length, err);
}

static int run_program(struct shim *shim, struct err *err)
{
        static char *const argv[] = { "start", GUEST_ID, NULL };
        auto_agent_reply reply = { 0 };
        int r = give_cards(shim, err);
        if (r == 0)
                r = agent_set_clock(shim->directory_fd, false, err);
        return r == 0 ? agent_call(shim->directory_fd, argv, &reply, err) : r;
}

static int prepare(struct shim *shim, struct err *err)
{
        char name[16];
        int r = read_config(shim, err);
        if (r == 0 && shim->config.waits)
                r = pty_receive_fd(shim->channel, &shim->start_listener, name, sizeof(name), NULL,
                                   err);
        if (r == 0)
                r = receive_taps(shim, err);
        if (r == 0)
                r = listen_ready(shim, err);
        if (r == 0)
                r = clock_watch_open(&shim->clock, shim->directory_fd, err);
        if (r == 0)
                r = start_machine(shim, err);
        if (r == 0)
                r = await_guest(shim, err);
        if (r == 0)
                r = launch(shim, err);
        if (r == 0 && !shim->config.waits)
                r = run_program(shim, err);
        return r;
}

/* `start` has come: it is told how it went, and waits no longer when its connection ends. */
static void serve_start(struct shim *shim)
{
        struct err err = { 0 };
        int connection;
        if (start_wait(shim->start_listener, &connection, &err) < 0)
                return;
        if (run_program(shim, &err) < 0)
                (void)sync_send_error(connection, &err);
        close(connection);
        close_fd(&shim->start_listener);
}

/* One at a time: what comes meanwhile is looked at after. */
static void compare_clocks(struct shim *shim)
{
        if (!shim->compare_again || shim->comparing)
                return;
        shim->compare_again = false;
        (void)clock_compare(shim->directory_fd, &shim->comparing, NULL);
}

static void tell_oom(struct shim *shim)
{
        char text[16];
        int size = snprintf(text, sizeof(text), "%u", shim->session.oom_kills);
        shim->oom_told = shim->session.oom_kills;
        shim->oom_next_ns = clock_monotonic_ns() + OOM_PAUSE_NS;
        (void)file_replace(shim->directory_fd, GUEST_OOM_FILE, text, (size_t)size, 0644, false,
                           NULL);
}

/* Milliseconds until there is something to tell, or -1. */
static int oom_timeout(struct shim *shim)
{
        if (shim->session.oom_kills == shim->oom_told)
                return -1;
        int64_t left_ns = shim->oom_next_ns - clock_monotonic_ns();
        if (left_ns > 0)
                return (int)(left_ns / NS_PER_MS) + 1;
        tell_oom(shim);
        return -1;
}

static int serve(struct shim *shim, struct err *err)
{
        int r = 0;
        while (r == 0 && !session_done(&shim->session)) {
                struct pollfd entries[SESSION_ENTRIES + CLOCK_ENTRIES + 3];
                struct pollfd *clock = entries + SESSION_ENTRIES, *own = clock + CLOCK_ENTRIES;
                session_watch(&shim->session, entries);
                clock_watch_poll(&shim->clock, clock);
                own[0] = (struct pollfd){ shim->signals, POLLIN, 0 };
                own[1] = (struct pollfd){ shim->console, POLLIN, 0 };
                own[2] = (struct pollfd){ shim->start_listener, POLLIN, 0 };
                if (poll(entries, ELEMENTS(entries), oom_timeout(shim)) < 0 && errno != EINTR)
                        return err_set(err, errno, "poll");
                if (own[0].revents)
                        r = take_signal(shim, err);
                if (own[1].revents)
                        listen_to_console(shim);
                if (own[2].revents)
                        serve_start(shim);
                shim->compare_again |= clock_watch_due(&shim->clock, clock);
                compare_clocks(shim);
                if (r == 0)
                        r = session_work(&shim->session, entries, err);
                if (shim->vmm_ended)
                        return tell_death(shim, err);
        }
        return r;
}

void shim_main(int channel)
{
        struct err err = { 0 };
        struct shim shim = { .channel = channel,
                             .directory_fd = -1,
                             .ready_listener = -1,
                             .start_listener = -1,
                             .console = -1,
                             .clock = { -1, -1 },
                             .session = { .control = -1 } };
        (void)fcntl(channel, F_SETFD, FD_CLOEXEC);
        all_signals(&shim);
        int r = prepare(&shim, &err);
        if (r < 0) {
                (void)sync_send_error(channel, &err);
                exit(1);
        }
        (void)sync_send(channel, SYNC_READY, NULL);
        close_fd(&shim.channel);
        r = serve(&shim, &err);
        if (shim.session.oom_kills != shim.oom_told)
                tell_oom(&shim);
        if (r < 0)
                fprintf(stderr, "isle-runtime: %s\n", err_text(&err));
        /* The first process of the pid namespace: the machine ends with us. */
        exit(r < 0 ? GONE_CODE : shim.session.exit_code);
}
