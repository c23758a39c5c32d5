#include "cli/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json_object.h>
#include <json-c/linkhash.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/field.h"
#include "codec/json.h"

#define CONFIG_LIMIT_BYTES (4u << 20)
#define ANSWER_LIMIT_BYTES (1u << 20)

/* --- base64 --- */

static const char standard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char for_urls[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

char *base64_encode(const void *data, size_t size, bool url)
{
        const char *alphabet = url ? for_urls : standard;
        const unsigned char *at = data;
        auto_buf out = { 0 };
        for (size_t i = 0; i < size; i += 3) {
                size_t here = size - i < 3 ? size - i : 3;
                uint32_t group = (uint32_t)at[i] << 16;
                group |= here > 1 ? (uint32_t)at[i + 1] << 8 : 0;
                group |= here > 2 ? at[i + 2] : 0;
                for (size_t j = 0; j < 4; j++)
                        buf_putc(&out, j <= here ? alphabet[group >> (18 - 6 * j) & 63] : '=');
        }
        return buf_take(&out);
}

char *base64_decode(const char *text, size_t *ret_size)
{
        size_t length = strlen(text);
        while (length && text[length - 1] == '=')
                length--;
        if (length % 4 == 1)
                return NULL;
        char *out = xmalloc(length / 4 * 3 + 3);
        size_t size = 0;
        uint32_t group = 0;
        for (size_t i = 0; i < length; i++) {
                const char *found = strchr(standard, text[i]);
                if (!found || !text[i]) {
                        free(out);
                        return NULL;
                }
                group = group << 6 | (uint32_t)(found - standard);
                if (i % 4 != 0)
                        out[size++] = (char)(group >> (6 - 2 * (i % 4)) & 0xff);
        }
        out[size] = '\0';
        *ret_size = size;
        return out;
}

/* --- files --- */

static char *config_path(const struct cli *cli)
{
        return xasprintf("%s/config.json", cli->config_dir);
}

/* The file as an object; an empty one where it is absent. */
static int config_read(const char *path, struct json_object **ret, struct err *err)
{
        auto_free char *text = NULL;
        size_t size;
        int r = file_read(AT_FDCWD, path, CONFIG_LIMIT_BYTES, &text, &size, err);
        if (r == -ENOENT || r == -ENOTDIR || (r == 0 && size == 0)) {
                err_clear(err);
                *ret = json_object_new_object();
                return 0;
        }
        auto_json config = NULL;
        if (r == 0)
                r = json_parse(text, size, &config, err);
        if (r < 0)
                return err_wrap(err, "read %s", path);
        if (!json_object_is_type(config, json_type_object))
                return err_plain(err, EINVAL, "read %s: not a JSON object", path);
        *ret = take_ptr(config);
        return 0;
}

static int config_write(const struct cli *cli, struct json_object *config, struct err *err)
{
        auto_free char *path = config_path(cli);
        auto_buf text = { 0 };
        field_pretty(&text, config);
        int r = file_make_dirs(AT_FDCWD, cli->config_dir, 0700, err);
        if (r == 0)
                r = file_replace(AT_FDCWD, path, buf_text(&text), text.size, 0600, false, err);
        return r;
}

/* --- credential helpers --- */

static int helper_run(const char *program, int in_fd, int out_fd)
{
        pid_t pid = fork();
        if (pid < 0)
                return -errno;
        if (pid > 0)
                return pid;
        int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(in_fd, STDIN_FILENO);
        dup2(out_fd, STDOUT_FILENO);
        dup2(null_fd, STDERR_FILENO);
        execlp(program, program, "get", NULL);
        _exit(127);
}

/* Asks docker-credential-NAME for a server: its answer has Username and Secret. */
static int helper_ask(const char *name, const char *server, struct json_object **ret)
{
        auto_free char *program = xasprintf("docker-credential-%s", name);
        auto_free char *answer = NULL;
        int in[2], out[2], status = -1;
        size_t size = 0;
        if (strchr(name, '/') || pipe2(in, O_CLOEXEC) < 0)
                return -EINVAL;
        if (pipe2(out, O_CLOEXEC) < 0) {
                close(in[0]);
                close(in[1]);
                return -errno;
        }
        int pid = helper_run(program, in[0], out[1]);
        close(in[0]);
        close(out[1]);
        int r = pid < 0 ? pid : io_write_full(in[1], server, strlen(server));
        close(in[1]);
        if (r == 0)
                r = file_read_fd(out[0], ANSWER_LIMIT_BYTES, &answer, &size, NULL);
        close(out[0]);
        if (pid > 0)
                waitpid(pid, &status, 0);
        if (r < 0 || status != 0)
                return -ENOENT;
        return json_parse(answer, size, ret, NULL);
}

static struct json_object *member(struct json_object *object, const char *map, const char *key)
{
        struct json_object *holder = field_get(object, map), *value = NULL;
        if (json_object_is_type(holder, json_type_object))
                json_object_object_get_ex(holder, key, &value);
        return value;
}

/* --- looking up --- */

/* What the API calls an auth config. */
struct auth {
        char *username, *password, *identity_token;
};

static void auth_finish(struct auth *auth)
{
        free(auth->username);
        free(auth->password);
        free(auth->identity_token);
        *auth = (struct auth){ 0 };
}

static void auth_take(struct auth *auth, const char *username, const char *secret)
{
        if (streq(username, "<token>"))
                auth->identity_token = xstrdup(secret);
        else
                auth->password = xstrdup(secret);
        auth->username = xstrdup(streq(username, "<token>") ? "" : username);
}

/* An entry of `auths`: { "auth": base64("user:password") }. */
static bool auth_from_entry(struct json_object *entry, struct auth *auth)
{
        size_t size;
        const char *token = field_text(entry, "identitytoken");
        auto_free char *plain = base64_decode(field_text(entry, "auth"), &size);
        char *colon = plain ? strchr(plain, ':') : NULL;
        if (colon) {
                *colon = '\0';
                auth_take(auth, plain, colon + 1);
        } else if (*field_text(entry, "username")) {
                auth_take(auth, field_text(entry, "username"), field_text(entry, "password"));
        }
        if (*token) {
                free(auth->identity_token);
                auth->identity_token = xstrdup(token);
        }
        return auth->username || auth->identity_token;
}

/* Entries may be named by URL: "https://host/v1/" is "host". */
static bool same_server(const char *key, const char *server)
{
        const char *rest = str_after(key, "https://");
        rest = rest ? rest : str_after(key, "http://");
        rest = rest ? rest : key;
        size_t length = strcspn(rest, "/");
        return streq(key, server) ||
               (strlen(server) == length && memcmp(rest, server, length) == 0);
}

static bool auth_from_config(struct json_object *config, const char *server, struct auth *auth)
{
        struct json_object *auths = field_get(config, "auths");
        if (json_object_is_type(auths, json_type_object)) {
                json_object_object_foreach(auths, key, entry)
                {
                        if (same_server(key, server) && auth_from_entry(entry, auth))
                                return true;
                }
        }
        auto_json answer = NULL;
        struct json_object *named = member(config, "credHelpers", server);
        const char *helper = named ? field_text(named, "") : field_text(config, "credsStore");
        if (!*helper || helper_ask(helper, server, &answer) < 0)
                return false;
        auth_take(auth, field_text(answer, "Username"), field_text(answer, "Secret"));
        return true;
}

static const char *server_of(const char *domain)
{
        return streq(domain, "docker.io") ? CREDENTIALS_DOCKER_HUB : domain;
}

static bool look_up(const struct cli *cli, const char *server, struct auth *auth)
{
        const char *home = getenv("HOME"), *docker = getenv("DOCKER_CONFIG");
        auto_free char *first = config_path(cli);
        auto_free char *second = NULL;
        if (!cli->config_named)
                second = docker ? xasprintf("%s/config.json", docker)
                                : xasprintf("%s/.docker/config.json", home ? home : "/root");
        const char *files[] = { first, second };
        for (size_t i = 0; i < ELEMENTS(files); i++) {
                auto_json config = NULL;
                if (files[i] && config_read(files[i], &config, NULL) == 0 &&
                    auth_from_config(config, server, auth))
                        return true;
        }
        return false;
}

char *credentials_header(const struct cli *cli, const char *domain)
{
        const char *server = server_of(domain);
        struct auth auth = { 0 };
        auto_json object = json_object_new_object();
        if (look_up(cli, server, &auth)) {
                if (!str_empty(auth.username))
                        field_set_text(object, "username", auth.username);
                if (auth.password)
                        field_set_text(object, "password", auth.password);
                if (auth.identity_token)
                        field_set_text(object, "identitytoken", auth.identity_token);
                field_set_text(object, "serveraddress", server);
        }
        auth_finish(&auth);
        auto_free char *text = json_text(object, false);
        auto_free char *encoded = base64_encode(text, strlen(text), true);
        return xasprintf("X-Registry-Auth: %s", encoded);
}

/* --- changing --- */

static struct json_object *auths_of(struct json_object *config)
{
        struct json_object *auths = field_get(config, "auths");
        if (json_object_is_type(auths, json_type_object))
                return auths;
        auths = json_object_new_object();
        json_object_object_add(config, "auths", auths);
        return auths;
}

static int store_entry(const struct cli *cli, const char *server, struct json_object *taken,
                       struct err *err)
{
        auto_free char *path = config_path(cli);
        auto_json config = NULL;
        int r = config_read(path, &config, err);
        if (r < 0) {
                json_object_put(taken);
                return r;
        }
        json_object_object_add(auths_of(config), server, taken);
        return config_write(cli, config, err);
}

int credentials_store(const struct cli *cli, const char *server, const char *username,
                      const char *password, struct err *err)
{
        auto_free char *plain = xasprintf("%s:%s", username, password);
        auto_free char *encoded = base64_encode(plain, strlen(plain), false);
        struct json_object *entry = json_object_new_object();
        field_set_text(entry, "auth", encoded);
        return store_entry(cli, server, entry, err);
}

int credentials_store_token(const struct cli *cli, const char *server, const char *username,
                            const char *token, struct err *err)
{
        auto_free char *plain = xasprintf("%s:", username);
        auto_free char *encoded = base64_encode(plain, strlen(plain), false);
        struct json_object *entry = json_object_new_object();
        field_set_text(entry, "auth", encoded);
        field_set_text(entry, "identitytoken", token);
        return store_entry(cli, server, entry, err);
}

int credentials_forget(const struct cli *cli, const char *server, struct err *err)
{
        auto_free char *path = config_path(cli);
        auto_json config = NULL;
        auto_strv keys = NULL;
        int r = config_read(path, &config, err);
        if (r < 0)
                return r;
        struct json_object *auths = auths_of(config);
        json_object_object_foreach(auths, key, ignored)
        {
                (void)ignored;
                if (same_server(key, server))
                        strv_push(&keys, key);
        }
        for (char **key_of = keys; key_of && *key_of; key_of++)
                json_object_object_del(auths, *key_of);
        if (!keys)
                return 0;
        r = config_write(cli, config, err);
        return r < 0 ? r : 1;
}
