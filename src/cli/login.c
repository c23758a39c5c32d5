#include <errno.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/credentials.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/terminal.h"
#include "codec/json.h"

#define PASSWORD_LIMIT_BYTES 65536

const struct option login_options[] = {
        { .name = "password",
          .letter = 'p',
          .kind = OPTION_TEXT,
          .help = "Password or token (others can see it while this runs: see --password-stdin)" },
        { .name = "password-stdin",
          .kind = OPTION_BOOL,
          .help = "Read the password or token from standard input" },
        { .name = "username", .letter = 'u', .kind = OPTION_TEXT, .help = "User name" },
        { 0 },
};

/* "https://localhost:5000/v2/" is "localhost:5000"; Docker Hub has its own name. */
static char *server_name(const char *text)
{
        if (str_empty(text) || streq(text, "docker.io") || streq(text, "index.docker.io"))
                return xstrdup(CREDENTIALS_DOCKER_HUB);
        if (streq(text, CREDENTIALS_DOCKER_HUB))
                return xstrdup(text);
        const char *rest = str_after(text, "https://");
        rest = rest ? rest : str_after(text, "http://");
        rest = rest ? rest : text;
        return xstrndup(rest, strcspn(rest, "/"));
}

static int read_password(char **ret, struct err *err)
{
        size_t size;
        int r = file_read_fd(STDIN_FILENO, PASSWORD_LIMIT_BYTES, ret, &size, err);
        if (r < 0)
                return r;
        while (size && strchr("\r\n", (*ret)[size - 1]))
                (*ret)[--size] = '\0';
        return 0;
}

/* Asks at the terminal; with `hidden` without echo. */
static int ask(const char *question, bool hidden, char **ret, struct err *err)
{
        size_t capacity = 0;
        printf("%s", question);
        fflush(stdout);
        if (hidden)
                terminal_hide(STDIN_FILENO, NULL);
        ssize_t length = getline(ret, &capacity, stdin);
        terminal_restore();
        if (hidden)
                printf("\n");
        if (length < 0)
                return err_plain(err, ECANCELED, "no answer");
        (*ret)[strcspn(*ret, "\r\n")] = '\0';
        return 0;
}

static int obtain(const struct args *args, char **ret_user, char **ret_password, struct err *err)
{
        const char *user = args_text(args, "username"), *password = args_text(args, "password");
        bool from_stdin = args_bool(args, "password-stdin");
        if (from_stdin && password)
                return err_plain(err, EINVAL,
                                 "--password and --password-stdin are mutually exclusive");
        if (from_stdin && str_empty(user))
                return err_plain(err, EINVAL, "Must provide --username with --password-stdin");
        if (password)
                fprintf(stderr, "WARNING! Using --password via the CLI is insecure. Use "
                                "--password-stdin.\n");
        if (!from_stdin && (!user || !password) && !terminal_is(STDIN_FILENO))
                return err_plain(err, EINVAL,
                                 "Error: Cannot perform an interactive login from a "
                                 "non TTY device");
        int r = 0;
        *ret_user = user ? xstrdup(user) : NULL;
        *ret_password = password ? xstrdup(password) : NULL;
        if (from_stdin)
                r = read_password(ret_password, err);
        if (r == 0 && !*ret_user)
                r = ask("Username: ", false, ret_user, err);
        if (r == 0 && !*ret_password)
                r = ask("Password: ", true, ret_password, err);
        if (r == 0 && (str_empty(*ret_user) || str_empty(*ret_password)))
                r = err_plain(err, EINVAL, "Error: Password Required");
        return r;
}

int cmd_login(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        auto_json body = json_object_new_object();
        auto_json answer = NULL;
        auto_free char *user = NULL, *password = NULL;
        auto_free char *server = server_name(args->length ? args->rest[0] : "");
        int r = obtain(args, &user, &password, err);
        if (r < 0)
                return r;
        field_set_text(body, "username", user);
        field_set_text(body, "password", password);
        field_set_text(body, "serveraddress", server);
        target_set(&target, "/auth");
        r = daemon_call(cli, "POST", &target, body, &answer, err);
        if (r < 0)
                return r;
        const char *token = field_text(answer, "IdentityToken");
        r = *token ? credentials_store_token(cli, server, user, token, err)
                   : credentials_store(cli, server, user, password, err);
        if (r < 0)
                return err_wrap(err, "Error saving credentials");
        const char *status = field_text(answer, "Status");
        puts(*status ? status : "Login Succeeded");
        return 0;
}

int cmd_logout(struct cli *cli, const struct args *args, struct err *err)
{
        auto_free char *server = server_name(args->length ? args->rest[0] : "");
        printf("Removing login credentials for %s\n", server);
        int r = credentials_forget(cli, server, err);
        return r < 0 ? r : 0;
}
