/* Images on the move: pull, push, load, save, import. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "api/base64.h"
#include "api/docker/image_json.h"
#include "api/reply.h"
#include "api/routes.h"
#include "api/task.h"
#include "api/transfer.h"
#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "image/image.h"

/* --- credentials --- */

static const struct json_field auth_fields[] = {
        JSON_FIELD(struct registry_auth, "username", JSON_STRING, username, 0),
        JSON_FIELD(struct registry_auth, "password", JSON_STRING, password, 0),
        JSON_FIELD(struct registry_auth, "identitytoken", JSON_STRING, identity_token, 0),
        JSON_FIELD(struct registry_auth, "registrytoken", JSON_STRING, registry_token, 0),
        JSON_FIELD(struct registry_auth, "serveraddress", JSON_STRING, server, 0),
};
static const struct json_shape auth_shape = JSON_SHAPE("X-Registry-Auth", struct registry_auth,
                                                       auth_fields);

/* Answers 400 and returns false where the header is not what it should be. */
static bool auth_header(struct http_request *request, struct registry_auth *ret)
{
        const char *header = http_request_header(request, "X-Registry-Auth");
        struct err err = { 0 };
        auto_free char *text = NULL;
        size_t size;
        if (str_empty(header))
                return true;
        if (base64_decode(header, &text, &size) < 0) {
                api_fail_argument(request, "invalid X-Registry-Auth header: not base64");
                return false;
        }
        if (size > 0 && json_decode_text(&auth_shape, text, size, ret, &err) < 0) {
                api_fail_argument(request, "invalid X-Registry-Auth header: %s", err_text(&err));
                return false;
        }
        return true;
}

/* --- what all transfers have --- */

struct movement {
        struct transfer transfer;
        char *reference; /* NULL: none */
        char *platform;
        struct registry_auth auth;
        int body_fd; /* -1: none */
        char **changes;
        char *message;
        struct image *image;  /* result */
        struct digest digest; /* result of a push */
};

static void movement_finish(struct transfer *transfer)
{
        struct movement *m = (struct movement *)transfer;
        free(m->reference);
        free(m->platform);
        json_free(&auth_shape, &m->auth);
        close_fd(&m->body_fd);
        strv_free(m->changes);
        free(m->message);
        image_unref(m->image);
}

static struct movement *movement_create(void (*run)(struct transfer *),
                                        void (*done)(struct transfer *))
{
        struct movement *m = new0(struct movement);
        m->body_fd = -1;
        m->transfer.run = run;
        m->transfer.done = done;
        m->transfer.finish = movement_finish;
        return m;
}

static void movement_drop(struct movement *m)
{
        movement_finish(&m->transfer);
        free(m);
}

static struct image_transfer movement_options(struct movement *m)
{
        return (struct image_transfer){
                .platform = m->platform,
                .auth = &m->auth,
                .progress = { transfer_event, &m->transfer },
                .cancel = &m->transfer.cancelled,
        };
}

/* name:tag or name@digest, as docker's query splits them. */
static char *join_reference(const char *name, const char *tag)
{
        if (str_empty(tag))
                return xstrdup(name);
        return xasprintf(strchr(tag, ':') ? "%s@%s" : "%s:%s", name, tag);
}

static bool has_tag(const char *name)
{
        const char *slash = strrchr(name, '/');
        return strpbrk(slash ? slash : name, ":@") != NULL;
}

static char *optional_query(struct http_request *request, const char *name)
{
        const char *value = http_request_query(request, name);
        return str_empty(value) ? NULL : xstrdup(value);
}

/* --- pull --- */

static void pull_run(struct transfer *transfer)
{
        struct movement *m = (struct movement *)transfer;
        struct image_transfer options = movement_options(m);
        transfer->r = image_pull(transfer->api->images, m->reference, &options, &m->image,
                                 &transfer->err);
}

static void pull_done(struct transfer *transfer)
{
        const struct movement *m = (struct movement *)transfer;
        image_event_emit(transfer->api, "pull", m->reference, m->reference);
}

static void pull_begin(struct http_request *request, struct api *api, const char *name)
{
        const char *tag = http_request_query(request, "tag");
        if (str_empty(tag) && !has_tag(name)) {
                api_fail_unsupported(request,
                                     "pulling all tags of a repository is not supported; name "
                                     "one, such as %s:latest",
                                     name);
                return;
        }
        struct movement *m = movement_create(pull_run, pull_done);
        m->reference = join_reference(name, tag);
        m->platform = optional_query(request, "platform");
        if (auth_header(request, &m->auth))
                transfer_submit(api, request, &m->transfer);
        else
                movement_drop(m);
}

/* --- import --- */

static void import_run(struct transfer *transfer)
{
        struct movement *m = (struct movement *)transfer;
        struct image_import how = {
                .reference = m->reference,
                .changes = m->changes,
                .message = m->message,
                .platform = m->platform,
                .cancel = &transfer->cancelled,
        };
        transfer->r = image_import(transfer->api->images, m->body_fd, &how, &m->image,
                                   &transfer->err);
        /* Lets the body's sender see that nobody reads on. */
        close_fd(&m->body_fd);
}

static void import_done(struct transfer *transfer)
{
        const struct movement *m = (struct movement *)transfer;
        struct json_object *record = json_object_new_object();
        put_string(record, "status", m->image->id.text);
        transfer_record(transfer, record);
        image_event_emit(transfer->api, "import", m->image->id.text,
                         m->reference ? m->reference : m->image->id.text);
}

static void import_begin(struct http_request *request, struct api *api, const char *source)
{
        const char *repo = http_request_query(request, "repo");
        if (!streq(source, "-")) {
                api_fail_unsupported(request,
                                     "importing from a URL is not supported; download %s and "
                                     "import the file",
                                     source);
                return;
        }
        struct movement *m = movement_create(import_run, import_done);
        if (!str_empty(repo))
                m->reference = join_reference(repo, http_request_query(request, "tag"));
        m->platform = optional_query(request, "platform");
        m->message = optional_query(request, "message");
        m->body_fd = http_request_body_fd(request);
        size_t cursor = 0;
        for (const char *c; (c = http_query_next(request, "changes", &cursor));)
                strv_push(&m->changes, c);
        transfer_submit(api, request, &m->transfer);
}

static void create_begin(struct http_request *request, void *arg)
{
        const char *image = http_request_query(request, "fromImage");
        const char *source = http_request_query(request, "fromSrc");
        if (!str_empty(image))
                pull_begin(request, arg, image);
        else if (!str_empty(source))
                import_begin(request, arg, source);
        else
                api_fail_argument(request, "fromImage or fromSrc must be given");
}

/* --- push --- */

static void push_run(struct transfer *transfer)
{
        struct movement *m = (struct movement *)transfer;
        struct image_transfer options = movement_options(m);
        transfer->r = image_push(transfer->api->images, m->reference, &options, &m->digest,
                                 &transfer->err);
}

static void push_done(struct transfer *transfer)
{
        const struct movement *m = (struct movement *)transfer;
        const char *colon = strrchr(m->reference, ':');
        struct json_object *record = json_object_new_object();
        put_object(record, "progressDetail");
        struct json_object *aux = put_object(record, "aux");
        put_string(aux, "Tag", colon && !strchr(colon, '/') ? colon + 1 : "latest");
        put_string(aux, "Digest", m->digest.text);
        transfer_record(transfer, record);
        image_event_emit(transfer->api, "push", m->reference, m->reference);
}

static void push_begin(struct http_request *request, void *arg)
{
        const char *name = http_request_param(request, "name");
        const char *tag = http_request_query(request, "tag");
        if (str_empty(tag) && !has_tag(name)) {
                api_fail_unsupported(request,
                                     "pushing all tags of a repository is not supported; name "
                                     "one, such as %s:latest",
                                     name);
                return;
        }
        struct movement *m = movement_create(push_run, push_done);
        m->reference = join_reference(name, tag);
        if (auth_header(request, &m->auth))
                transfer_submit(arg, request, &m->transfer);
        else
                movement_drop(m);
}

/* --- load --- */

static void loaded(void *arg, const char *line)
{
        struct json_object *record = json_object_new_object();
        auto_free char *text = xasprintf("%s\n", line);
        put_string(record, "stream", text);
        transfer_record(arg, record);
}

static void load_run(struct transfer *transfer)
{
        struct movement *m = (struct movement *)transfer;
        struct image_transfer options = movement_options(m);
        transfer->r = image_load(transfer->api->images, m->body_fd, &options, loaded, transfer,
                                 &transfer->err);
        close_fd(&m->body_fd);
}

static void load_done(struct transfer *transfer)
{
        image_event_emit(transfer->api, "load", "", NULL);
}

static void load_begin(struct http_request *request, void *arg)
{
        struct movement *m = movement_create(load_run, load_done);
        m->platform = optional_query(request, "platform");
        m->body_fd = http_request_body_fd(request);
        m->transfer.quiet = http_request_query_bool(request, "quiet", false);
        transfer_submit(arg, request, &m->transfer);
}

/* --- save: names are looked up first, so that a missing one is a proper 404; then
 * a thread writes the archive into a stream that the server reads, in which a
 * failed archive never looks whole. --- */

struct saving {
        struct task task;
        char **names;
};

struct archive {
        struct api *api;
        char **names;
        int fd;
};

static void archive_run(void *arg)
{
        struct archive *archive = arg;
        if (image_save(archive->api->images, archive->names, strv_length(archive->names),
                       archive->fd, NULL) >= 0)
                io_stream_end(archive->fd);
        close_fd(&archive->fd);
}

static void archive_done(void *arg)
{
        struct archive *archive = arg;
        for (char **name = archive->names; *name; name++)
                image_event_emit(archive->api, "save", *name, *name);
        strv_free(archive->names);
        free(archive);
}

static void saving_finish(struct task *task)
{
        strv_free(((struct saving *)task)->names);
}

static void save_run(struct task *task)
{
        for (char **name = ((struct saving *)task)->names; *name && task->r >= 0; name++) {
                auto_image image = NULL;
                task->r = image_resolve(task->api->images, *name, &image, &task->err);
        }
}

static int save_start(struct saving *saving, int *ret_fd, struct err *err)
{
        auto_fd reader = -1, writer = -1;
        int r = io_stream(&reader, &writer, err);
        if (r < 0)
                return r;
        struct archive *archive = new0(struct archive);
        archive->api = saving->task.api;
        archive->names = strv_copy(saving->names);
        archive->fd = writer;
        r = transfer_thread(archive->api, archive_run, archive_done, archive, err);
        if (r < 0) {
                strv_free(archive->names);
                free(archive);
                return r;
        }
        take_fd(writer);
        *ret_fd = take_fd(reader);
        return 0;
}

static void save_reply(struct task *task)
{
        struct err err = { 0 };
        int fd = -1;
        int r = save_start((struct saving *)task, &fd, &err);
        if (r < 0)
                api_fail(task->request, r, &err);
        else
                http_reply_fd(task->request, 200, "application/x-tar", fd);
}

static void save_submit(struct http_request *request, struct api *api, char **names)
{
        struct saving *saving = new0(struct saving);
        saving->names = names;
        saving->task.run = save_run;
        saving->task.reply = save_reply;
        saving->task.finish = saving_finish;
        task_submit(api, request, &saving->task);
}

static void save_begin(struct http_request *request, void *arg)
{
        char **names = NULL;
        strv_push(&names, http_request_param(request, "name"));
        save_submit(request, arg, names);
}

static void save_many_begin(struct http_request *request, void *arg)
{
        char **names = NULL;
        size_t cursor = 0;
        for (const char *name; (name = http_query_next(request, "names", &cursor));)
                strv_push(&names, name);
        if (names)
                save_submit(request, arg, names);
        else
                api_fail_argument(request, "no image is named");
}

/* --- login --- */

struct login {
        struct task task;
        struct registry_auth auth;
};

static void login_finish(struct task *task)
{
        json_free(&auth_shape, &((struct login *)task)->auth);
}

static void login_run(struct task *task)
{
        task->r = image_login(task->api->images, &((struct login *)task)->auth, &task->err);
}

static void login_reply(struct task *task)
{
        struct json_object *reply = json_object_new_object();
        put_string(reply, "Status", "Login Succeeded");
        put_string(reply, "IdentityToken", "");
        http_reply_json(task->request, 200, reply);
}

static void login_begin(struct http_request *request, void *arg)
{
        struct login *login = new0(struct login);
        if (!api_body_decode(request, &auth_shape, &login->auth)) {
                free(login);
                return;
        }
        login->task.run = login_run;
        login->task.reply = login_reply;
        login->task.finish = login_finish;
        task_submit(arg, request, &login->task);
}

const struct http_route docker_image_transfer_routes[] = {
        { "POST", "/images/create", create_begin, HTTP_BODY_PIPE },
        { "POST", "/images/load", load_begin, HTTP_BODY_PIPE },
        { "GET", "/images/get", save_many_begin, HTTP_BODY_NONE },
        { "GET", "/images/{name*}/get", save_begin, HTTP_BODY_NONE },
        { "POST", "/images/{name*}/push", push_begin, HTTP_BODY_BUFFERED },
        { "POST", "/auth", login_begin, HTTP_BODY_BUFFERED },
};
const size_t docker_image_transfer_routes_length = ELEMENTS(docker_image_transfer_routes);
