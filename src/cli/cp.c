#include <errno.h>
#include <fcntl.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/credentials.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/path.h"
#include "cli/terminal.h"
#include "cli/tree.h"
#include "cli/units.h"
#include "codec/json.h"

/* Theory of operation.
 *
 * What is copied is a tar stream whose entries start with the source's last
 * component. Where it is unpacked, and whether that component is renamed, follows
 * from what the destination is, as with cp(1):
 *
 *     destination                source a file           source a directory
 *     a directory                into it                 into it
 *     a file                     replaces it             error
 *     absent                     under that name         under that name
 *     absent, with slash behind  error                   under that name
 *
 * A source that ends in "/." is a directory's content: its last component is ".".
 */

/* File modes in the API are Go's. */
#define GO_MODE_DIRECTORY (1u << 31)
#define GO_MODE_SYMLINK   (1u << 27)
#define CHUNK_SIZE        65536

const struct option cp_options[] = {
        { .name = "archive",
          .letter = 'a',
          .kind = OPTION_BOOL,
          .help = "Keep owners (into containers)" },
        { .name = "follow-link",
          .letter = 'L',
          .kind = OPTION_BOOL,
          .help = "Copy what a symbolic link in the source path points to" },
        { .name = "quiet",
          .letter = 'q',
          .kind = OPTION_BOOL,
          .help = "Do not tell what was copied (which is told only on a terminal)" },
        { 0 },
};

/* What one end of the copy is. */
struct place {
        char *path;
        char *link; /* where a symbolic link in a container points to; else NULL */
        bool exists, directory;
};

static void place_finish(struct place *place)
{
        free(place->path);
        free(place->link);
}
#define auto_place __attribute__((cleanup(place_finish))) struct place

struct copy {
        struct cli *cli;
        const struct args *args;
        const char *container; /* with its length: the part of the argument before ":" */
        const char *inside;    /* path in the container */
        const char *outside;   /* path here, or "-" */
        uint64_t bytes;
        struct http_exchange *exchange;
        char chunk[CHUNK_SIZE];
};

/* Where the stream goes, and how its first component is renamed (NULL: not). */
struct landing {
        char *directory, *old_base, *new_base;
};

static void landing_finish(struct landing *landing)
{
        free(landing->directory);
        free(landing->old_base);
        free(landing->new_base);
}
#define auto_landing __attribute__((cleanup(landing_finish))) struct landing

/* The table above. */
static int find_landing(const struct place *source, const struct place *target, struct landing *ret,
                        struct err *err)
{
        auto_free char *ignored = NULL, *base = NULL;
        path_split(source->path, &ignored, &base);
        if (target->exists && target->directory) {
                *ret = (struct landing){ .directory = xstrdup(target->path) };
                return 0;
        }
        if (target->exists && source->directory)
                return err_plain(err, ENOTDIR, "cannot copy directory");
        if (!source->directory && path_asserts_directory(target->path))
                return err_plain(err, ENOENT, "no such directory");
        struct landing landing = { 0 };
        path_split(target->path, &landing.directory, &landing.new_base);
        landing.old_base = take_ptr(base);
        *ret = landing;
        return 0;
}

/* --- the container's side --- */

static void archive_target(const struct copy *copy, const char *path, struct buf *target)
{
        target_set(target, "/containers/%s/archive", copy->container);
        target_add(target, "path", path);
}

static int decode_stat(const char *header, struct place *place, struct err *err)
{
        size_t size;
        auto_free char *text = header ? base64_decode(header, &size) : NULL;
        auto_json stat = NULL;
        if (!text || json_parse(text, size, &stat, err) < 0)
                return err_plain(err, EBADMSG, "the daemon did not tell what the path is");
        uint64_t mode = (uint64_t)field_int(stat, "mode");
        place->exists = true;
        place->directory = mode & GO_MODE_DIRECTORY;
        if (mode & GO_MODE_SYMLINK)
                place->link = xstrdup(field_text(stat, "linkTarget"));
        return 0;
}

/* 0 also where the path is absent. */
static int stat_inside(const struct copy *copy, const char *path, struct place *place,
                       struct err *err)
{
        auto_buf target = { 0 };
        auto_exchange exchange = NULL;
        archive_target(copy, path, &target);
        int r = daemon_begin(copy->cli, "HEAD", &target, NULL, NULL, &exchange, err);
        place->path = xstrdup(path);
        if (r < 0 && copy->cli->http_status == 404)
                return -ENOENT;
        if (r < 0)
                return r;
        return decode_stat(http_exchange_header(exchange, "X-Docker-Container-Path-Stat"), place,
                           err);
}

/* A link's target, seen from the directory that holds it. Heap. */
static char *link_target(const char *path, const char *link)
{
        auto_free char *directory = NULL, *base = NULL;
        path_split(path, &directory, &base);
        auto_free char *joined = path_join(directory, link);
        return path_absolute(joined[0] == '/' ? joined : path);
}

/* The destination in the container, its link followed once. */
static int find_target_inside(const struct copy *copy, struct place *ret, struct err *err)
{
        auto_free char *path = copy->inside[0] == '/' ? xstrdup(copy->inside)
                                                      : xasprintf("/%s", copy->inside);
        auto_place place = { 0 };
        int r = stat_inside(copy, path, &place, err);
        if (r == 0 && place.link) {
                auto_free char *followed = link_target(path, place.link);
                auto_place second = { 0 };
                r = stat_inside(copy, followed, &second, err);
                if (r == 0 || r == -ENOENT) {
                        *ret = second;
                        second = (struct place){ 0 };
                        return 0;
                }
        }
        if (r < 0 && r != -ENOENT)
                return r;
        *ret = place;
        place = (struct place){ 0 };
        return 0;
}

/* --- our side --- */

static int find_source_outside(const char *path, bool follow, struct place *ret, struct err *err)
{
        struct stat st;
        auto_free char *whole = path_absolute_kept(path);
        /* A slash behind makes lstat follow, as it should. */
        if (fstatat(AT_FDCWD, whole, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
                return err_set(err, errno, "lstat %s", whole);
        *ret = (struct place){
                .path = take_ptr(whole),
                .exists = true,
                .directory = S_ISDIR(st.st_mode),
        };
        return 0;
}

static int find_target_outside(const char *path, struct place *ret, struct err *err)
{
        struct stat st;
        auto_place place = { .path = path_absolute_kept(path) };
        if (stat(place.path, &st) == 0) {
                place.exists = true;
                place.directory = S_ISDIR(st.st_mode);
                if (!place.directory && path_asserts_directory(path))
                        return err_plain(err, ENOTDIR, "not a directory");
                auto_free char *real = realpath(place.path, NULL);
                if (real && !path_asserts_directory(place.path)) {
                        free(place.path);
                        place.path = take_ptr(real);
                }
        } else if (errno == ENOTDIR) {
                return err_set(err, ENOTDIR, "stat %s", place.path);
        } else {
                auto_free char *directory = NULL, *base = NULL;
                path_split(place.path, &directory, &base);
                if (stat(directory, &st) < 0)
                        return err_set(err, errno, "invalid output path: directory %s", directory);
                if (!S_ISDIR(st.st_mode))
                        return err_plain(err, ENOTDIR, "invalid output path: %s is not a directory",
                                         directory);
        }
        *ret = place;
        place = (struct place){ 0 };
        return 0;
}

/* --- from the container --- */

static ssize_t read_stream(void *arg, const void **ret_block, struct err *err)
{
        struct copy *copy = arg;
        ssize_t n = http_exchange_read(copy->exchange, copy->chunk, sizeof(copy->chunk), err);
        if (n > 0)
                copy->bytes += (uint64_t)n;
        *ret_block = copy->chunk;
        return n;
}

/* With -L: the path behind the link. */
static int follow_inside(const struct copy *copy, char **path, struct err *err)
{
        auto_place place = { 0 };
        int r = stat_inside(copy, *path, &place, err);
        if (r == 0 && place.link) {
                char *followed = link_target(*path, place.link);
                free(*path);
                *path = followed;
        }
        return r;
}

static int copy_out(struct copy *copy, struct err *err)
{
        auto_buf target = { 0 };
        auto_exchange exchange = NULL;
        auto_place source = { 0 }, place = { 0 };
        auto_landing landing = { 0 };
        /* Seen from the root, as the daemon does. */
        auto_free char *rooted = copy->inside[0] == '/' ? xstrdup(copy->inside)
                                                        : xasprintf("/%s", copy->inside);
        auto_free char *path = path_absolute_kept(rooted);
        auto_free char *ignored = NULL, *asked_base = NULL;
        path_split(path, &ignored, &asked_base);
        int r = 0;
        bool followed = args_bool(copy->args, "follow-link");
        if (!streq(copy->outside, "-"))
                r = find_target_outside(copy->outside, &place, err);
        if (r == 0 && followed)
                r = follow_inside(copy, &path, err);
        archive_target(copy, path, &target);
        if (r == 0)
                r = daemon_begin(copy->cli, "GET", &target, NULL, NULL, &exchange, err);
        if (r < 0)
                return r;
        copy->exchange = exchange;
        if (streq(copy->outside, "-"))
                return daemon_copy_body(exchange, STDOUT_FILENO, err);
        source.path = xstrdup(path);
        r = decode_stat(http_exchange_header(exchange, "X-Docker-Container-Path-Stat"), &source,
                        err);
        if (r == 0)
                r = find_landing(&source, &place, &landing, err);
        if (r < 0)
                return r;
        if (followed && !landing.new_base) {
                /* Keep the name that was asked for, not that of the link's target. */
                auto_free char *directory = NULL;
                path_split(path, &directory, &landing.old_base);
                landing.new_base = xstrdup(asked_base);
        }
        auto_fd root_fd = open(landing.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (root_fd < 0)
                return err_set(err, errno, "open %s", landing.directory);
        return tree_unpack(root_fd, landing.old_base, landing.new_base, read_stream, copy, err);
}

/* --- into the container --- */

static int write_stream(void *arg, const void *data, size_t size, struct err *err)
{
        struct copy *copy = arg;
        copy->bytes += size;
        return http_exchange_write(copy->exchange, data, size, err);
}

static int send_standard_input(struct copy *copy, struct err *err)
{
        for (;;) {
                ssize_t n = read(STDIN_FILENO, copy->chunk, sizeof(copy->chunk));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_set(err, errno, "read standard input");
                if (n == 0)
                        return 0;
                int r = write_stream(copy, copy->chunk, (size_t)n, err);
                if (r < 0)
                        return r;
        }
}

/* Opens the upload, lets the stream be written, and hears the verdict. */
static int send_archive(struct copy *copy, const char *directory, const struct place *source,
                        const char *name, struct err *err)
{
        auto_buf target = { 0 };
        auto_exchange exchange = NULL;
        char *headers[] = { "Content-Type: application/x-tar", NULL };
        archive_target(copy, directory, &target);
        target_add(&target, "noOverwriteDirNonDir", "true");
        if (args_bool(copy->args, "archive"))
                target_add(&target, "copyUIDGID", "true");
        int r = daemon_upload(copy->cli, "PUT", &target, headers, &exchange, err);
        if (r < 0)
                return r;
        copy->exchange = exchange;
        r = source ? tree_pack(source->path, name, args_bool(copy->args, "follow-link"),
                               write_stream, copy, err)
                   : send_standard_input(copy, err);
        if (r == 0)
                r = http_exchange_write_end(exchange, err);
        /* -EPIPE: the daemon has refused it already, and says why. */
        return r < 0 && r != -EPIPE ? r : daemon_check(copy->cli, exchange, err);
}

static int copy_in(struct copy *copy, struct err *err)
{
        auto_place source = { 0 }, target = { 0 };
        auto_landing landing = { 0 };
        auto_free char *ignored = NULL, *base = NULL;
        bool standard = streq(copy->outside, "-");
        int r = 0;
        if (!standard)
                r = find_source_outside(copy->outside, args_bool(copy->args, "follow-link"),
                                        &source, err);
        if (r == 0)
                r = find_target_inside(copy, &target, err);
        if (r < 0)
                return r;
        if (standard && !target.directory)
                return err_plain(err, ENOTDIR, "destination \"%s:%s\" must be a directory",
                                 copy->container, copy->inside);
        if (standard)
                return send_archive(copy, target.path, NULL, NULL, err);
        r = find_landing(&source, &target, &landing, err);
        if (r < 0)
                return r;
        path_split(source.path, &ignored, &base);
        return send_archive(copy, landing.directory, &source,
                            landing.new_base ? landing.new_base : base, err);
}

/* --- the command --- */

/* "NAME:PATH" is in a container, unless it looks like a path. Cuts the argument. */
static bool split_argument(char *argument, char **ret_path)
{
        char *colon = strchr(argument, ':');
        if (argument[0] == '/' || argument[0] == '.' || !colon)
                return false;
        *colon = '\0';
        *ret_path = colon + 1;
        return true;
}

static void tell(const struct copy *copy, bool into)
{
        char size[UNITS_TEXT_SIZE];
        if (args_bool(copy->args, "quiet") || !terminal_is(STDOUT_FILENO))
                return;
        size_decimal(size, (double)copy->bytes, 3);
        if (into)
                fprintf(stderr, "Successfully copied %s to %s:%s\n", size, copy->container,
                        copy->inside);
        else
                fprintf(stderr, "Successfully copied %s to %s\n", size, copy->outside);
}

int cmd_cp(struct cli *cli, const struct args *args, struct err *err)
{
        char *from_path = NULL, *to_path = NULL;
        bool from = split_argument(args->rest[0], &from_path);
        bool to = split_argument(args->rest[1], &to_path);
        if (from && to)
                return err_plain(err, EINVAL, "copying between containers is not supported");
        if (!from && !to)
                return err_plain(err, EINVAL, "must specify at least one container source");
        auto_free struct copy *copy = new0(struct copy);
        copy->cli = cli;
        copy->args = args;
        copy->container = args->rest[from ? 0 : 1];
        copy->inside = from ? from_path : to_path;
        copy->outside = args->rest[from ? 1 : 0];
        int r = from ? copy_out(copy, err) : copy_in(copy, err);
        if (r == 0 && !streq(copy->outside, "-"))
                tell(copy, to);
        return r;
}
