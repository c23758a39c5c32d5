/* A developer's command line on an image store, without isled: used by
 * tests/image and by hand.
 *
 *     probe [--root DIR] [--insecure HOST]... [--ca FILE] COMMAND ARG...
 *
 * Prints what the API would send as lines; errors on stderr, exit status 1. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "base/str.h"
#include "image/durable.h"
#include "image/image.h"
#include "image/snapshot.h"
#include "store/store.h"

static atomic_bool cancelled;
static const char *platform;
static struct registry_auth auth;

static void report(void *arg, const struct image_event *event)
{
        (void)arg;
        if (event->total)
                printf("%s: %s %" PRIu64 "/%" PRIu64 "\n", event->id, event->status, event->current,
                       event->total);
        else
                printf("%s%s%s\n", event->id, *event->id ? ": " : "", event->status);
        fflush(stdout);
}

static void line(void *arg, const char *text)
{
        (void)arg;
        puts(text);
}

static void check(void *arg, const struct image_check *check)
{
        (void)arg;
        printf("%s %s %s %s %s\n", check->good ? "good" : "BAD", check->image, check->kind,
               check->digest, check->problem);
}

static int changed(void *arg, enum snapshot_change kind, const char *path)
{
        (void)arg;
        printf("%c %s\n", "CAD"[kind], path);
        return 0;
}

static struct image_transfer transfer(void)
{
        return (struct image_transfer){
                .platform = platform,
                .auth = auth.username || auth.registry_token || auth.identity_token ? &auth : NULL,
                .progress.report = report,
                .cancel = &cancelled
        };
}

static int cmd_pull(struct image_store *st, char **args, struct err *err)
{
        struct image_transfer how = transfer();
        auto_image image = NULL;
        int r = image_pull(st, args[0], &how, &image, err);
        if (r == 0)
                printf("id %s layers %zu size %" PRIu64 "\n", image->id.text, image->layers_length,
                       image->size_bytes);
        return r;
}

static int cmd_push(struct image_store *st, char **args, struct err *err)
{
        struct image_transfer how = transfer();
        struct digest digest;
        return image_push(st, args[0], &how, &digest, err);
}

static int cmd_login(struct image_store *st, char **args, struct err *err)
{
        auth.server = args[0];
        return image_login(st, &auth, err);
}

static int cmd_list(struct image_store *st, char **args, struct err *err)
{
        struct image_filter filter = { .dangling = -1 };
        struct image **list;
        size_t length;
        for (; *args; args++) {
                const char *value;
                if ((value = str_after(*args, "reference=")))
                        strv_push(&filter.references, value);
                else if ((value = str_after(*args, "label=")))
                        strv_push(&filter.labels, value);
                else if ((value = str_after(*args, "before=")))
                        filter.before = value;
                else if ((value = str_after(*args, "since=")))
                        filter.since = value;
                else if ((value = str_after(*args, "dangling=")))
                        filter.dangling = streq(value, "true");
        }
        int r = image_list(st, &filter, &list, &length, err);
        for (size_t i = 0; r == 0 && i < length; i++) {
                auto_free char *tags = strv_join(list[i]->repo_tags, ",");
                auto_free char *digests = strv_join(list[i]->repo_digests, ",");
                printf("%s [%s] [%s] %" PRIu64 "\n", list[i]->id.text, tags ? tags : "",
                       digests ? digests : "", list[i]->size_bytes);
        }
        if (r == 0)
                image_list_free(list, length);
        strv_free(filter.references);
        strv_free(filter.labels);
        return r;
}

static int cmd_tag(struct image_store *st, char **args, struct err *err)
{
        return image_tag(st, args[0], args[1], err);
}

static void print_removal(struct image_removal *removal)
{
        for (size_t i = 0; i < removal->length; i++)
                printf("%s: %s\n", removal->items[i].untagged ? "Untagged" : "Deleted",
                       removal->items[i].name);
        printf("reclaimed %" PRIu64 "\n", removal->reclaimed_bytes);
        image_removal_finish(removal);
}

/* rmi NAME [force] [running=ID] [stopped=ID]: uses are of the image itself */
static int cmd_rmi(struct image_store *st, char **args, struct err *err)
{
        struct image_removal removal = { 0 };
        struct image_use use = { 0 };
        bool force = false;
        auto_image image = NULL;
        if (image_resolve(st, args[0], &image, NULL) == 0)
                use.image_id = image->id.text;
        for (char **arg = args + 1; *arg; arg++) {
                const char *id;
                if (streq(*arg, "force"))
                        force = true;
                else if ((id = str_after(*arg, "running=")))
                        use.instance_id = id, use.running = true;
                else if ((id = str_after(*arg, "stopped=")))
                        use.instance_id = id;
        }
        int r = image_remove(st, args[0], force, &use, use.instance_id ? 1 : 0, &removal, err);
        print_removal(&removal);
        return r;
}

static int cmd_prune(struct image_store *st, char **args, struct err *err)
{
        struct image_removal removal = { 0 };
        int r = image_prune(st, !streq(args[0], "all"), NULL, NULL, 0, &removal, err);
        print_removal(&removal);
        return r;
}

static int cmd_gc(struct image_store *st, char **args, struct err *err)
{
        struct image_gc_result result = { 0 };
        (void)args;
        int r = image_gc(st, &result, err);
        printf("blobs %zu layers %zu partials %zu bytes %" PRIu64 "\n", result.blobs, result.layers,
               result.partials, result.bytes);
        return r;
}

static int cmd_verify(struct image_store *st, char **args, struct err *err)
{
        int r = image_verify(st, args[0], check, NULL, err);
        return r > 0 ? err_plain(err, EBADMSG, "%d bad", r) : r;
}

static int cmd_inspect(struct image_store *st, char **args, struct err *err)
{
        auto_image image = NULL;
        int r = image_resolve(st, args[0], &image, err);
        if (r == 0)
                printf("%s\n%s\n", image->id.text, image->spec_text);
        return r;
}

static int cmd_history(struct image_store *st, char **args, struct err *err)
{
        struct image_history_entry *entries;
        size_t length;
        int r = image_history(st, args[0], &entries, &length, err);
        for (size_t i = 0; r == 0 && i < length; i++)
                printf("%s %" PRIu64 " %s %s\n", entries[i].id, entries[i].size_bytes,
                       entries[i].created_by, entries[i].comment);
        if (r == 0)
                image_history_free(entries, length);
        return r;
}

static int cmd_save(struct image_store *st, char **args, struct err *err)
{
        auto_fd fd = open(args[0], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        return image_save(st, args + 1, strv_length(args + 1), fd, err);
}

static int cmd_load(struct image_store *st, char **args, struct err *err)
{
        struct image_transfer how = transfer();
        auto_fd fd = open(args[0], O_RDONLY | O_CLOEXEC);
        return image_load(st, fd, &how, line, NULL, err);
}

static int cmd_import(struct image_store *st, char **args, struct err *err)
{
        auto_fd fd = open(args[0], O_RDONLY | O_CLOEXEC);
        struct image_import how = { .reference = args[1],
                                    .changes = args[1] ? args + 2 : NULL,
                                    .platform = platform };
        auto_image image = NULL;
        int r = image_import(st, fd, &how, &image, err);
        if (r == 0)
                puts(image->id.text);
        return r;
}

static int print_snapshot(int r, struct snapshot *snapshot)
{
        if (r == 0)
                printf("lowerdir=%s,upperdir=%s,workdir=%s\n", snapshot->lower, snapshot->upper,
                       snapshot->work);
        snapshot_finish(snapshot);
        return r;
}

static int cmd_prepare(struct image_store *st, char **args, struct err *err)
{
        auto_image image = NULL;
        struct snapshot snapshot = { 0 };
        int r = image_resolve(st, args[1], &image, err);
        if (r == 0)
                r = snapshot_prepare(st, args[0], image, &snapshot, err);
        return print_snapshot(r, &snapshot);
}

static int cmd_open(struct image_store *st, char **args, struct err *err)
{
        struct snapshot snapshot = { 0 };
        return print_snapshot(snapshot_open(st, args[0], &snapshot, err), &snapshot);
}

static int cmd_remove(struct image_store *st, char **args, struct err *err)
{
        return snapshot_remove(st, args[0], err);
}

static int cmd_diff(struct image_store *st, char **args, struct err *err)
{
        return snapshot_diff(st, args[0], changed, NULL, err);
}

static int cmd_usage(struct image_store *st, char **args, struct err *err)
{
        struct image_disk_usage usage;
        uint64_t bytes;
        int r;
        if (args[0]) {
                r = snapshot_usage(st, args[0], &bytes, err);
                if (r == 0)
                        printf("%" PRIu64 "\n", bytes);
                return r;
        }
        r = image_usage(st, NULL, 0, &usage, err);
        if (r == 0)
                printf("layers %" PRIu64 " blobs %" PRIu64 " reclaimable %" PRIu64 " images %zu\n",
                       usage.layers_bytes, usage.blobs_bytes, usage.reclaimable_bytes,
                       usage.images_length);
        return r;
}

static int cmd_sync(struct image_store *st, char **args, struct err *err)
{
        (void)args;
        return durable_sync(st, err);
}

static const struct {
        const char *name;
        int (*run)(struct image_store *st, char **args, struct err *err);
        size_t least;
} commands[] = {
        { "pull", cmd_pull, 1 },       { "push", cmd_push, 1 },       { "login", cmd_login, 1 },
        { "list", cmd_list, 0 },       { "tag", cmd_tag, 2 },         { "rmi", cmd_rmi, 1 },
        { "prune", cmd_prune, 1 },     { "gc", cmd_gc, 0 },           { "verify", cmd_verify, 0 },
        { "inspect", cmd_inspect, 1 }, { "history", cmd_history, 1 }, { "save", cmd_save, 2 },
        { "load", cmd_load, 1 },       { "import", cmd_import, 1 },   { "prepare", cmd_prepare, 2 },
        { "open", cmd_open, 1 },       { "remove", cmd_remove, 1 },   { "diff", cmd_diff, 1 },
        { "usage", cmd_usage, 0 },     { "sync", cmd_sync, 0 },
};

static void cancel(int signo)
{
        (void)signo;
        atomic_store(&cancelled, true);
}

static int run(const char *root, struct image_settings *settings, char **argv)
{
        struct err err = { 0 };
        struct store *store = NULL;
        struct image_store *st = NULL;
        auto_free char *database = xasprintf("%s.db", root);
        int r = store_open_sqlite(database, &store, &err);
        if (r == 0)
                r = image_store_open(root, store, settings, &st, &err);
        for (size_t i = 0; r == 0 && i <= ELEMENTS(commands); i++) {
                if (i == ELEMENTS(commands))
                        r = err_plain(&err, EINVAL, "unknown command '%s'", argv[0]);
                else if (streq(commands[i].name, argv[0]) &&
                         strv_length(argv + 1) >= commands[i].least) {
                        r = commands[i].run(st, argv + 1, &err);
                        break;
                }
        }
        image_store_close(st);
        store_close(store);
        if (r < 0)
                fprintf(stderr, "%s\n", err_text(&err));
        return r < 0 ? 1 : 0;
}

static void notice(void *arg, const char *text)
{
        (void)arg;
        fprintf(stderr, "notice: %s\n", text);
}

int main(int argc, char **argv)
{
        const char *root = "/tmp/isle-image/root";
        char **insecure = NULL;
        struct image_settings settings = { .notice = notice, .retry_delay_ns = 20000000 };
        signal(SIGINT, cancel);
        int i = 1;
        for (; i + 1 < argc && str_starts(argv[i], "--"); i += 2) {
                char *value = argv[i + 1];
                uint64_t number = 0;
                str_to_u64(value, &number);
                if (streq(argv[i], "--root"))
                        root = value;
                else if (streq(argv[i], "--insecure"))
                        strv_push(&insecure, value);
                else if (streq(argv[i], "--ca"))
                        settings.registry_ca_file = value;
                else if (streq(argv[i], "--certificates"))
                        settings.certificates_dir = value;
                else if (streq(argv[i], "--platform"))
                        platform = value;
                else if (streq(argv[i], "--user"))
                        auth.username = value;
                else if (streq(argv[i], "--password"))
                        auth.password = value;
                else if (streq(argv[i], "--identity-token"))
                        auth.identity_token = value;
                else if (streq(argv[i], "--limit-bytes"))
                        settings.limits.size_bytes = number;
                else if (streq(argv[i], "--limit-entries"))
                        settings.limits.entries = number;
        }
        settings.insecure_registries = insecure;
        if (i >= argc)
                return 2;
        int r = run(root, &settings, argv + i);
        strv_free(insecure);
        return r;
}
