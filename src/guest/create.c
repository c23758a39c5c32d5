#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/message.h"
#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "guest/guest.h"
#include "guest/network.h"
#include "runtime/sync.h"
#include "sys/namespace.h"
#include "sys/pty.h"

struct guest {
        struct guest_parts parts;
        struct shim_config config;
        int ours, theirs; /* ends of the channel */
        int netns;
        struct network network; /* as it was joined */
};

static int transform(struct launch *launch, void *arg, struct err *err)
{
        struct guest *guest = arg;
        struct oci_spec *spec = &launch->spec;
        const struct launch_options *options = launch->options;
        const char *cpu, *model, *root;
        struct guest_size size;
        int r = guest_choose_cpu(spec, &cpu, err);
        if (r == 0)
                r = guest_choose_cpu_model(spec, &model, err);
        if (r == 0)
                r = guest_size(spec, &size, err);
        if (r == 0)
                r = guest_check_parts(spec, err);
        if (r == 0)
                r = root_choose(spec, &root, err);
        if (r < 0)
                return r;
        json_map_set(&spec->annotations, GUEST_CPU_ANNOTATION, cpu);
        if (model)
                json_map_set(&spec->annotations, GUEST_CPU_MODEL_ANNOTATION, model);
        if (streq(root, "erofs")) {
                json_map_set(&spec->annotations, ROOT_ANNOTATION, root);
                r = root_take_apart(spec, &guest->parts.root, err);
        }
        if (r < 0)
                return r;
        const struct guest_root *layers = &guest->parts.root;
        guest->config = (struct shim_config){ .memory_bytes = size.memory_bytes,
                                              .cpus = size.cpus,
                                              .cpus_max = size.cpus_max,
                                              .cpu = xstrdup(cpu),
                                              .cpu_model = model ? xstrdup(model) : NULL,
                                              .upper = layers->upper ? xstrdup(layers->upper)
                                                                     : NULL,
                                              .read_only = layers->read_only,
                                              .is_volatile = layers->is_volatile,
                                              .terminal = spec->process && spec->process->terminal,
                                              .waits = options->wait_for_start };
        auto_free char *state = xasprintf("%s/%s", options->root, options->id);
        r = guest_make_jail(spec, &guest->parts, state, guest->theirs, err);
        return r == 0 ? guest_make_inside(launch->config_text, layers->image, &guest->config.inside,
                                          err)
                      : r;
}

static int make_targets(const struct launch *launch, struct err *err)
{
        struct oci_spec spec;
        const char *config = launch->config_text;
        int r = oci_spec_parse(config, strlen(config), &spec, err);
        if (r < 0)
                return r;
        if (spec.root->readonly)
                r = guest_make_targets(&spec, err);
        json_free(&oci_spec_shape, &spec);
        return r;
}

static int prepare(struct launch *launch, void *arg, struct err *err)
{
        struct guest *guest = arg;
        int state = launch->state.fd;
        if (mkdirat(state, "vm", 0700) < 0 || mkdirat(state, "jail", 0755) < 0 ||
            mkdirat(state, GUEST_CONTROL_NAME, 0700) < 0)
                return err_set(err, errno, "make the jail");
        auto_free char *text = json_encode_text(&shim_config_shape, &guest->config, false);
        int r = make_targets(launch, err);
        if (r == 0)
                r = file_replace(state, "vm/" GUEST_CONFIG, text, strlen(text), 0600, false, err);
        if (r == 0)
                r = file_replace(state, "vm/" GUEST_CPU_FILE, guest->config.cpu,
                                 strlen(guest->config.cpu), 0644, false, err);
        if (r == 0)
                r = file_replace(state, "vm/" GUEST_OOM_FILE, "0", 1, 0644, false, err);
        if (r == 0 && guest->parts.root.image)
                r = root_note(state, &guest->parts.root, err);
        return r;
}

/* The hooks have run. Who makes a namespace for the container without a hook may bring
 * devices until the start. */
static int connect_network(struct launch *launch, struct guest *guest, struct err *err)
{
        static const char name[] = "tap";
        const struct oci_hooks *hooks = launch->spec.hooks;
        const struct oci_namespace *net = oci_spec_namespace(&launch->spec, OCI_NAMESPACE_NETWORK);
        bool spare = launch->options->wait_for_start && str_empty(net->path) &&
                     !(hooks && (hooks->prestart_length || hooks->create_runtime_length));
        int taps[NETWORK_CARDS_MAX];
        size_t length = 0;
        auto_fd directory = openat(launch->state.fd, "vm", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (directory < 0)
                return err_set(err, errno, "open the machine's directory");
        int r = guest_open_network(launch->pid, &guest->netns, err);
        if (r == 0)
                r = network_create(directory, guest->netns, spare, taps, &length, err);
        if (r == 0)
                r = network_join(directory, guest->netns, err);
        (void)network_read(directory, &guest->network, NULL);
        if (r == 0)
                r = sync_send(guest->ours, SYNC_GO, err);
        for (size_t i = 0; i < length; i++) {
                if (r == 0)
                        r = pty_send_fd(guest->ours, taps[i], name, sizeof(name), err);
                close_fd(&taps[i]);
        }
        return r;
}

static int accompany(struct launch *launch, void *arg, struct err *err)
{
        struct guest *guest = arg;
        static const char name[] = "start";
        close_fd(&guest->theirs);
        int r = 0;
        if (launch->listen_fd >= 0)
                r = pty_send_fd(guest->ours, launch->listen_fd, name, sizeof(name), err);
        close_fd(&launch->listen_fd);
        if (r == 0)
                r = connect_network(launch, guest, err);
        if (r == 0)
                r = sync_expect(guest->ours, SYNC_READY, err);
        r = sync_last_words(guest->ours, r, err);
        const char *image = guest->parts.root.image;
        if (r < 0 && image && strstr(err_text(err), AGENT_BAD_IMAGE))
                err_advise(err, "remove '%s', and it is made anew", image);
        return r;
}

static int with_guest(const struct launch_options *options, bool keep, int *ret_code,
                      struct err *err)
{
        struct guest guest = { .ours = -1, .theirs = -1, .netns = -1 };
        int pair[2];
        int r = guest_parts_find(&guest.parts, err);
        if (r == 0)
                r = sync_pair(pair, err);
        if (r < 0)
                goto finish;
        guest.ours = pair[0];
        guest.theirs = pair[1];
        struct launch_variant variant = { .transform = transform,
                                          .prepare = prepare,
                                          .accompany = accompany,
                                          .pass_fd = guest.theirs,
                                          .arg = &guest };
        struct launch_options with = *options;
        with.variant = &variant;
        r = options->wait_for_start ? container_create(&with, err)
                                    : container_run(&with, true, ret_code, err);
        if (r == 0 && !options->wait_for_start && !options->detach && !keep)
                r = guest_delete(options->root, options->id, true, err);
        if (r < 0) /* where the namespace stays */
                (void)network_leave(&guest.network, guest.netns, NULL);
finish:
        network_finish(&guest.network);
        close_fd(&guest.netns);
        close_fd(&guest.ours);
        close_fd(&guest.theirs);
        guest_parts_finish(&guest.parts);
        json_free(&shim_config_shape, &guest.config);
        return r;
}

int guest_create(const struct launch_options *options, struct err *err)
{
        int ignored;
        return with_guest(options, false, &ignored, err);
}

int guest_run(const struct launch_options *options, bool keep, int *ret_code, struct err *err)
{
        return with_guest(options, keep, ret_code, err);
}
