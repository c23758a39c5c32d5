/* isle-vmm: one virtual machine. See vmm/machine.h. */
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "http/listen.h"
#include "vmm/control/call.h"
#include "vmm/control/control.h"
#include "vmm/gdb/server.h"
#include "vmm/jail/jail.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/vm.h"

#define EXIT_USAGE 2

static const char *api_socket;
static const char *attached, *detached; /* a device of the machine at api_socket */
static const char *saved;               /* a directory for the machine at api_socket */
static const char *restored;            /* one that the first life goes on from */
static bool sandbox = true;

static const struct option options[] = {
        { "api-socket", required_argument, NULL, 'p' },
        { "config", required_argument, NULL, 'f' },
        { "kernel", required_argument, NULL, 'k' },
        { "initrd", required_argument, NULL, 'i' },
        { "cmdline", required_argument, NULL, 'a' },
        { "memory", required_argument, NULL, 'm' },
        { "memory-file", required_argument, NULL, 'M' },
        { "memory-template", required_argument, NULL, 'W' },
        { "cpus", required_argument, NULL, 'n' },
        { "cpu", required_argument, NULL, 'c' },
        { "cpu-model", required_argument, NULL, 'C' },
        { "serial", required_argument, NULL, 's' },
        { "console", required_argument, NULL, 't' },
        { "disk", required_argument, NULL, 'd' },
        { "net", required_argument, NULL, 'e' },
        { "fs", required_argument, NULL, 'F' },
        { "vsock", required_argument, NULL, 'v' },
        { "transport", required_argument, NULL, 'R' },
        { "hotplug", required_argument, NULL, 'P' },
        { "hotplug-queues", required_argument, NULL, 'Q' },
        { "attach", required_argument, NULL, 'A' },
        { "detach", required_argument, NULL, 'D' },
        { "snapshot", required_argument, NULL, 'N' },
        { "restore", required_argument, NULL, 'O' },
        { "gdb", required_argument, NULL, 'g' },
        { "gdb-wait", no_argument, NULL, 'G' },
        { "profile", required_argument, NULL, 'L' },
        { "sandbox", required_argument, NULL, 'S' },
        { "no-reboot", no_argument, NULL, 'r' },
        { "no-unpack", no_argument, NULL, 'U' },
        { "iommu", no_argument, NULL, 'I' },
        { "test-devices", no_argument, NULL, 'T' },
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
        { 0 },
};

static const char usage[] =
        "Usage: isle-vmm [OPTIONS]\n"
        "Runs one virtual machine until it powers off.\n\n"
        "  --api-socket PATH control socket; without a kernel, waits there to be told one\n"
        "  --config FILE     JSON description of the machine\n"
        "  --kernel FILE     bzImage, ELF with a PVH note, or multiboot image\n"
        "  --initrd FILE     initial ramdisk\n"
        "  --cmdline TEXT    kernel command line\n"
        "  --memory SIZE     memory, as in 512m or 2g (default 256m)\n"
        "  --memory-file FILE\n"
        "                    an empty file that becomes the guest's memory, and keeps it\n"
        "  --memory-template FILE\n"
        "                    memory of another machine: pages that are the same are shared\n"
        "                    with whoever names it too, once the guest idles\n"
        "  --cpus N          virtual processors (default 1)\n"
        "  --cpu KIND        auto, kvm, kvm-split or soft (default auto)\n"
        "  --cpu-model NAME  what the processor has: host (default), x86-64,\n"
        "                    x86-64-v2 or x86-64-v3\n"
        "  --serial WHERE    stdio (default) or none: the first serial port\n"
        "  --console WHERE   none (default) or stdio: the virtio console\n"
        "  --disk PATH[,ro][,format=raw|qcow2][,serial=TEXT][,iops=N][,bps=SIZE]\n"
        "         [,size=SIZE][,backing=FILE,backing_format=raw|qcow2]\n"
        "                    adds a disk; size and backing make one that is not there\n"
        "  --net tap=NAME|fd=N[,mac=ADDRESS][,queues=N][,mtu=N][,bps=SIZE]\n"
        "                    adds a network card at a tap interface, or at one that\n"
        "                    descriptor N is open at; it needs mac\n"
        "  --fs TAG=PATH[,ro][,submounts][,exclusive][,only=NAME:…]\n"
        "                    shares a directory, to be mounted as virtiofs by its tag\n"
        "  --vsock path=PATH[,cid=N]\n"
        "                    a socket device whose host side is at PATH\n"
        "  --transport KIND  pci (default) or mmio: where virtio devices are found\n"
        "  --hotplug N       places for devices that are attached while it runs, 0 (default) to 8\n"
        "  --hotplug-queues N\n"
        "                    pairs of queues that such a network may have, 1 (default) to 8\n"
        "  --gdb tcp:[HOST]:PORT|unix:PATH\n"
        "                    lets gdb come, with 'target remote'; without a host only from this "
        "one\n"
        "  --gdb-wait        the guest stands until gdb lets it go\n"
        "  --profile FILE    counts what guest code runs on the software CPU; the report is "
        "appended\n"
        "                    to FILE, and /tmp/perf-PID.map lets perf show guest code\n"
        "  --sandbox on|off  whether the machine's process is locked up (default on)\n"
        "  --no-unpack       a bzImage unpacks itself, and moves to a random address: slower\n"
        "  --no-reboot       a reset of the guest ends the program\n"
        "  --restore DIR     goes on from a snapshot, of a machine of the same configuration\n"
        "  --iommu           an IOMMU (Intel VT-d) between devices and memory; with --cpu soft\n"
        "  --test-devices    debug-exit port and devices for test kernels\n"
        "  --help, --version\n\n"
        "At the control socket of a machine that runs:\n"
        "  --attach NAME     attaches what one --disk or --net says\n"
        "  --detach NAME     takes it away again\n"
        "  --snapshot DIR    saves it, while it is paused, to a new directory\n\n"
        "Exit status: 0 powered off or reset, 1 failed, 2 usage, 3 guest panicked,\n"
        "4 guest crashed (triple fault); 128 + N, its process was killed by signal N;\n"
        "159 a thread did what its jail forbids; with --test-devices, (code << 1) | 1.\n";

static int named(const char *option, const char *text, const char *const *names, int *ret,
                 struct err *err)
{
        for (int i = 0; names[i]; i++) {
                if (*text && streq(text, names[i])) {
                        *ret = i;
                        return 0;
                }
        }
        auto_free char *all = strv_join((char *const *)names + (*names[0] == 0), ", ");
        return err_plain(err, EINVAL, "--%s '%s': there are %s", option, text, all);
}

static int take_memory(const char *text, uint64_t *ret_mib, struct err *err)
{
        uint64_t bytes;
        if (str_to_size(text, &bytes) < 0)
                return err_plain(err, EINVAL, "--memory '%s': a size such as 512m is needed", text);
        *ret_mib = bytes >> 20;
        return 0;
}

static int take_sandbox(const char *text, struct err *err)
{
        static const char *const names[] = { "off", "on", NULL };
        int value = 0;
        int r = named("sandbox", text, names, &value, err);
        if (r == 0)
                sandbox = value;
        return r;
}

static int take_number(const char *option, const char *text, uint32_t *ret, struct err *err)
{
        if (str_to_u32(text, ret) < 0)
                return err_plain(err, EINVAL, "--%s '%s': not a number", option, text);
        return 0;
}

static void replace(char **slot, const char *text)
{
        free(*slot);
        *slot = xstrdup(text);
}

/* What is no part of a configuration. */
static const char **program_option(int option)
{
        switch (option) {
        case 'p':
                return &api_socket;
        case 'A':
                return &attached;
        case 'D':
                return &detached;
        case 'N':
                return &saved;
        case 'O':
                return &restored;
        default:
                return NULL;
        }
}

static int take_option(int option, struct vm_config *c, struct err *err)
{
        switch (option) {
        case 'f': /* already read: flags count more than the file, wherever they stand */
                return 0;
        case 'k':
                replace(&c->kernel, optarg);
                return 0;
        case 'i':
                replace(&c->initrd, optarg);
                return 0;
        case 'a':
                replace(&c->cmdline, optarg);
                return 0;
        case 'm':
                return take_memory(optarg, &c->memory_mib, err);
        case 'M':
                replace(&c->memory_file, optarg);
                return 0;
        case 'W':
                replace(&c->memory_template, optarg);
                return 0;
        case 'n':
                return take_number("cpus", optarg, &c->cpus, err);
        case 'c':
                return named("cpu", optarg, vm_cpu_names, &c->cpu, err);
        case 'C':
                return named("cpu-model", optarg, cpu_model_names, &c->cpu_model, err);
        case 's':
                return named("serial", optarg, vm_port_names, &c->serial, err);
        case 't':
                return named("console", optarg, vm_port_names, &c->console, err);
        case 'd':
                return vm_config_add_disk(c, optarg, err);
        case 'e':
                return vm_config_add_network(c, optarg, err);
        case 'F':
                return vm_config_add_filesystem(c, optarg, err);
        case 'v':
                return vm_config_set_vsock(c, optarg, err);
        case 'R':
                return named("transport", optarg, vm_transport_names, &c->transport, err);
        case 'P':
                return take_number("hotplug", optarg, &c->hotplug, err);
        case 'Q':
                return take_number("hotplug-queues", optarg, &c->hotplug_queues, err);
        case 'g':
                replace(&c->gdb, optarg);
                return 0;
        case 'G':
                c->gdb_wait = true;
                return 0;
        case 'L':
                replace(&c->profile, optarg);
                return 0;
        case 'S':
                return take_sandbox(optarg, err);
        case 'r':
                c->no_reboot = true;
                return 0;
        case 'U':
                c->no_unpack = true;
                return 0;
        case 'I':
                c->iommu = true;
                return 0;
        default:
                c->test_devices = true;
                return 0;
        }
}

/* ---- the terminal ---- */

static struct termios saved_terminal;

static void restore_terminal(void)
{
        tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_terminal);
}

/* Keys go to the guest as they are typed; signals' keys too. */
static void raw_terminal(void)
{
        if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &saved_terminal) < 0)
                return;
        struct termios raw = saved_terminal;
        cfmakeraw(&raw);
        raw.c_oflag |= OPOST;
        atexit(restore_terminal);
        tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

/* ---- running ---- */

static void ended_from_outside(void *arg, int signo)
{
        (void)signo;
        machine_end(arg, MACHINE_STOPPED, 0, NULL);
}

static int exit_status(const struct machine_outcome *o, const char **ret_story)
{
        switch (o->kind) {
        case MACHINE_PANICKED:
                *ret_story = "the guest panicked";
                return 3;
        case MACHINE_CRASHED:
                *ret_story = "the guest crashed (triple fault)";
                return 4;
        case MACHINE_FAILED:
                *ret_story = o->err.text;
                return 1;
        case MACHINE_DEBUG_EXIT:
                return (int)(o->code << 1 | 1) & 0xff;
        default:
                return 0;
        }
}

struct program {
        struct vm_config *config;
        struct vm_ports ports;
        struct snapshot snapshot;
        int api_fd; /* listens; -1 without a socket */
        bool start; /* asked for over the socket */
};

/* A server of the socket for this process; it comes and goes, the socket stays. */
static int serve(const struct program *p, struct loop *loop, void (*start)(void *arg), void *arg,
                 struct control **ret, struct err *err)
{
        int fd = p->api_fd < 0 ? -1 : fcntl(p->api_fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return p->api_fd < 0 ? 0 : err_set(err, errno, "control socket");
        return control_create(loop, fd, p->config, start, arg, ret, err);
}

/* ---- the machine's process: one life of it, from power-on to its end ---- */

static struct jail_needs needs_of(const struct vm_config *c, char **ret_dir)
{
        struct jail_needs needs = { .files = c->filesystems_length > 0 };
        if (c->vsock) {
                const char *path = c->vsock->path, *slash = strrchr(path, '/');
                *ret_dir = slash ? xstrndup(path, (size_t)(slash - path) + 1) : xstrdup(".");
                needs.vsock_dir = *ret_dir;
        }
        return needs;
}

static int run_machine(struct vm *vm, const struct jail_needs *needs, struct control *control,
                       struct err *err)
{
        struct machine *m = vm->machine;
        struct loop_source *term = NULL, *interrupt = NULL;
        int r = loop_signal(m->loop, SIGTERM, ended_from_outside, m, &term, err);
        if (r == 0)
                r = loop_signal(m->loop, SIGINT, ended_from_outside, m, &interrupt, err);
        if (r == 0)
                r = machine_start(m, err);
        if (r == 0)
                r = gdb_server_start(vm->gdb, err);
        if (r == 0 && jail_is_on())
                r = jail_seal(needs, err);
        if (r == 0) {
                control_set_vm(control, vm);
                machine_resume(m);
                loop_run(m->loop);
                control_set_vm(control, NULL);
        }
        loop_source_destroy(term);
        loop_source_destroy(interrupt);
        return r;
}

static void nothing(void *arg)
{
        (void)arg;
}

/* With its first timer sd-event reads the host's boot id, to spread what may wait: while
 * there still is one. */
static int wake_timers(struct loop *loop, struct err *err)
{
        struct loop_source *timer = NULL;
        int r = loop_timer(loop, nothing, NULL, &timer, err);
        if (r == 0) {
                loop_timer_arm(timer, NS_PER_S); /* so far off that it may be moved */
                loop_step(loop, 0);
        }
        loop_source_destroy(timer);
        return r;
}

static void start_again(void *arg)
{
        (void)arg; /* cannot be: the machine has been started */
}

static int live(struct program *p, struct machine_outcome *ret, struct err *err)
{
        struct loop *loop = NULL;
        struct control *control = NULL;
        struct vm vm = { 0 };
        auto_free char *dir = NULL;
        const struct jail_needs needs = needs_of(p->config, &dir);
        int r = sandbox ? jail_enter(&needs, err) : 0;
        if (r == 0)
                r = loop_create(&loop, err);
        if (r == 0)
                r = wake_timers(loop, err);
        if (r == 0)
                r = serve(p, loop, start_again, NULL, &control, err);
        if (r == 0)
                r = vm_create(loop, p->config, &p->ports, &vm, err);
        if (r == 0)
                r = run_machine(&vm, &needs, control, err);
        if (r == 0)
                *ret = vm.machine->outcome;
        vm_destroy(&vm);
        control_destroy(control);
        if (loop)
                loop_destroy(loop);
        return r;
}

static int inside(void *arg)
{
        struct program *p = arg;
        struct machine_outcome outcome = { 0 };
        struct err err = { 0 };
        const char *story = NULL;
        int status = 1;
        if (live(p, &outcome, &err) < 0)
                story = err_text(&err);
        else if (outcome.kind == MACHINE_RESET && !p->config->no_reboot)
                status = JAIL_AGAIN;
        else
                status = exit_status(&outcome, &story);
        if (story)
                fprintf(stderr, "isle-vmm: %s\n", story);
        return status;
}

/* ---- the program ---- */

struct waiting {
        struct program *program;
        struct loop *loop;
};

static void start_asked(void *arg)
{
        struct waiting *w = arg;
        w->program->start = true;
        loop_exit(w->loop, 0);
}

static void stop_asked(void *arg, int signo)
{
        struct waiting *w = arg;
        (void)signo;
        loop_exit(w->loop, 0);
}

/* Until somebody configures and starts the machine over the socket. */
static int wait_for_start(struct program *p, struct err *err)
{
        struct waiting w = { .program = p };
        struct control *control = NULL;
        struct loop_source *term = NULL, *interrupt = NULL;
        int r = loop_create(&w.loop, err);
        if (r < 0)
                return r;
        r = loop_signal(w.loop, SIGTERM, stop_asked, &w, &term, err);
        if (r == 0)
                r = loop_signal(w.loop, SIGINT, stop_asked, &w, &interrupt, err);
        if (r == 0)
                r = serve(p, w.loop, start_asked, &w, &control, err);
        if (r == 0)
                loop_run(w.loop);
        control_destroy(control);
        loop_source_destroy(term);
        loop_source_destroy(interrupt);
        loop_destroy(w.loop);
        return r;
}

static int open_snapshot(struct program *p, struct err *err)
{
        if (p->config->memory_file)
                return err_plain(err, EINVAL,
                                 "--memory-file '%s' and --restore '%s' do not go together: the "
                                 "memory is the snapshot's",
                                 p->config->memory_file, restored);
        int r = snapshot_open(restored, &p->snapshot, err);
        if (r == 0)
                p->ports.restore = &p->snapshot;
        return r;
}

static int run_lives(struct program *p, struct err *err)
{
        int status = JAIL_AGAIN;
        int r = vm_config_check(p->config, err);
        if (r == 0)
                r = vm_ports_open(p->config, &p->ports, err);
        if (r == 0 && restored) {
                r = open_snapshot(p, err);
                if (r < 0)
                        vm_ports_close(&p->ports);
        }
        if (r < 0)
                return r;
        if (!sandbox)
                fprintf(stderr, "isle-vmm: --sandbox off: a guest that breaks out has all rights "
                                "of who started this\n");
        while (r == 0 && status == JAIL_AGAIN) {
                r = jail_run(sandbox, inside, p, &status, err);
                p->ports.gdb_wait = false;
                p->ports.restore = NULL; /* a reset is a start */
        }
        snapshot_close(&p->snapshot);
        vm_ports_close(&p->ports);
        return r < 0 ? r : status;
}

/* For a machine that runs already. */
static int ask_machine(struct vm_config *c, struct err *err)
{
        if (!api_socket || !!attached + !!detached + !!saved > 1)
                return err_plain(err, EINVAL,
                                 "--attach, --detach or --snapshot: --api-socket PATH names the "
                                 "machine");
        if (saved)
                return control_snapshot(api_socket, saved, err);
        return attached ? control_attach(api_socket, attached, c, err)
                        : control_detach(api_socket, detached, err);
}

static int run(struct vm_config *c, struct err *err)
{
        struct program p = { .config = c, .api_fd = -1, .start = true, .snapshot.memory_fd = -1 };
        int r = 0;
        if (api_socket)
                r = http_listen_unix(api_socket, 0600, (gid_t)-1, &p.api_fd, err);
        if (r == 0 && api_socket && !c->kernel) {
                p.start = false;
                r = wait_for_start(&p, err);
        }
        if (r == 0 && p.start)
                r = run_lives(&p, err);
        if (p.api_fd >= 0) {
                unlink(api_socket);
                close_fd(&p.api_fd);
        }
        return r;
}

int main(int argc, char **argv)
{
        struct vm_config config;
        struct err err = { 0 };
        int option, r = 0;
        vm_config_init(&config);
        for (int i = 1; r == 0 && i + 1 < argc; i++)
                if (streq(argv[i], "--config") && vm_config_read(argv[i + 1], &config, &err) < 0)
                        r = EXIT_USAGE;
        while (r == 0 && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
                if (option == '?') {
                        r = EXIT_USAGE;
                } else if (option == 'h') {
                        fputs(usage, stdout);
                        return 0;
                } else if (option == 'V') {
                        printf("isle-vmm %s\n", ISLE_VERSION);
                        return 0;
                } else if (program_option(option)) {
                        *program_option(option) = optarg;
                } else if (take_option(option, &config, &err) < 0) {
                        r = EXIT_USAGE;
                }
        }
        if (r == 0 && optind < argc)
                r = err_plain(&err, EINVAL, "'%s' is no option; a kernel is named by --kernel",
                              argv[optind]) < 0
                            ? EXIT_USAGE
                            : 0;
        if (r == 0 && (attached || detached || saved)) {
                r = ask_machine(&config, &err);
        } else if (r == 0) {
                raw_terminal();
                r = run(&config, &err);
        }
        if (err.text[0])
                fprintf(stderr, "isle-vmm: %s\n", err_text(&err));
        vm_config_finish(&config);
        return r < 0 ? 1 : r;
}
