#include "cli/command.h"

#include <string.h>

#include "base/str.h"

/* Short for rows without flags: paths, arguments, summary, function, options, how
 * many arguments, what completes them. */
const struct command commands[] = {
        { "run|container run", "[OPTIONS] IMAGE [COMMAND] [ARG...]",
          "Create a container from an image and start it", cmd_run, run_options, 1, ARGUMENTS_ANY,
          COMPLETE_IMAGE, COMMAND_STOP_EARLY | COMMAND_COMMON | COMMAND_PREFIXED,
          "The exit status is the command's; 125 where the daemon or the options are at fault, "
          "126 where the command cannot be executed, 127 where it is not found, 128+N where "
          "signal N ended it. Networks are 'none' (which is what 'default' means) and 'host' "
          "so far; published ports need a network." },
        { "exec|container exec", "[OPTIONS] CONTAINER COMMAND [ARG...]",
          "Run a further command in a running container", cmd_exec, exec_options, 2, ARGUMENTS_ANY,
          COMPLETE_RUNNING, COMMAND_STOP_EARLY | COMMAND_COMMON },
        { "ps|container ls|container list|container ps", "[OPTIONS]", "List containers", cmd_ps,
          ps_options, 0, 0, COMPLETE_NOTHING, COMMAND_COMMON },
        { "pull|image pull", "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry",
          cmd_pull, pull_options, 1, 1, COMPLETE_IMAGE, COMMAND_COMMON },
        { "push|image push", "[OPTIONS] NAME[:TAG]", "Upload an image to a registry", cmd_push,
          push_options, 1, 1, COMPLETE_IMAGE, COMMAND_COMMON },
        { "images|image ls|image list", "[OPTIONS] [REPOSITORY[:TAG]]", "List images", cmd_images,
          images_options, 0, 1, COMPLETE_IMAGE, COMMAND_COMMON },
        { "login", "[OPTIONS] [SERVER]", "Log in to a registry (Docker Hub where none is named)",
          cmd_login, login_options, 0, 1, COMPLETE_NOTHING, COMMAND_COMMON },
        { "logout", "[SERVER]", "Forget the login to a registry", cmd_logout, NULL, 0, 1,
          COMPLETE_NOTHING, COMMAND_COMMON },
        { "version", "[OPTIONS]", "Show the versions of client and daemon", cmd_version,
          info_options, 0, 0, COMPLETE_NOTHING, COMMAND_COMMON },
        { "info|system info", "[OPTIONS]", "Describe the daemon and its host", cmd_info,
          info_options, 0, 0, COMPLETE_NOTHING, COMMAND_COMMON },

        { "attach|container attach", "[OPTIONS] CONTAINER",
          "Join the standard streams of a running container", cmd_attach, attach_options, 1, 1,
          COMPLETE_RUNNING, 0 },
        { "cp|container cp",
          "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n"
          "[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
          "Copy files between a container and this machine", cmd_cp, cp_options, 2, 2,
          COMPLETE_FILE, 0,
          "'-' as the source reads a tar archive from standard input and unpacks it into a "
          "directory of the container; '-' as the destination writes one to standard output." },
        { "create|container create", "[OPTIONS] IMAGE [COMMAND] [ARG...]",
          "Create a container without starting it", cmd_create, create_options, 1, ARGUMENTS_ANY,
          COMPLETE_IMAGE, COMMAND_STOP_EARLY },
        { "diff|container diff", "CONTAINER", "Show what a container changed in its filesystem",
          cmd_diff, NULL, 1, 1, COMPLETE_CONTAINER, 0 },
        { "events|system events", "[OPTIONS]", "Show what happens, as it happens", cmd_events,
          events_options, 0, 0, COMPLETE_NOTHING, 0 },
        { "export|container export", "[OPTIONS] CONTAINER",
          "Write a container's filesystem as a tar archive", cmd_export, export_options, 1, 1,
          COMPLETE_CONTAINER, 0 },
        { "history|image history", "[OPTIONS] IMAGE", "Show how an image was made", cmd_history,
          history_options, 1, 1, COMPLETE_IMAGE, 0 },
        { "import|image import", "[OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]",
          "Make an image of a tar archive of a filesystem", cmd_import, import_options, 1, 2,
          COMPLETE_FILE, 0 },
        { "inspect", "[OPTIONS] NAME|ID [NAME|ID...]",
          "Show everything about containers, images or volumes", cmd_inspect, inspect_options, 1,
          ARGUMENTS_ANY, COMPLETE_CONTAINER, 0 },
        { "kill|container kill", "[OPTIONS] CONTAINER [CONTAINER...]",
          "Send a signal to containers (KILL unless told otherwise)", cmd_kill, kill_options, 1,
          ARGUMENTS_ANY, COMPLETE_RUNNING, 0 },
        { "load|image load", "[OPTIONS]", "Load images from an archive that 'save' made", cmd_load,
          load_options, 0, 0, COMPLETE_NOTHING, 0 },
        { "logs|container logs", "[OPTIONS] CONTAINER", "Show what a container has printed",
          cmd_logs, logs_options, 1, 1, COMPLETE_CONTAINER, 0 },
        { "pause|container pause", "CONTAINER [CONTAINER...]", "Freeze all processes of containers",
          cmd_pause, NULL, 1, ARGUMENTS_ANY, COMPLETE_RUNNING, 0 },
        { "rename|container rename", "CONTAINER NEW_NAME", "Give a container another name",
          cmd_rename, NULL, 2, 2, COMPLETE_CONTAINER, 0 },
        { "restart|container restart", "[OPTIONS] CONTAINER [CONTAINER...]",
          "Stop containers and start them again", cmd_restart, stop_options, 1, ARGUMENTS_ANY,
          COMPLETE_CONTAINER, 0 },
        { "rm|container rm|container remove", "[OPTIONS] CONTAINER [CONTAINER...]",
          "Remove containers", cmd_rm, rm_options, 1, ARGUMENTS_ANY, COMPLETE_CONTAINER, 0 },
        { "rmi|image rm|image remove", "[OPTIONS] IMAGE [IMAGE...]", "Remove images", cmd_rmi,
          rmi_options, 1, ARGUMENTS_ANY, COMPLETE_IMAGE, 0 },
        { "save|image save", "[OPTIONS] IMAGE [IMAGE...]", "Write images as a tar archive",
          cmd_save, save_options, 1, ARGUMENTS_ANY, COMPLETE_IMAGE, 0 },
        { "start|container start", "[OPTIONS] CONTAINER [CONTAINER...]",
          "Start containers that do not run", cmd_start, start_options, 1, ARGUMENTS_ANY,
          COMPLETE_CONTAINER, 0 },
        { "stats|container stats", "[OPTIONS] [CONTAINER...]",
          "Show what resources containers use, live", cmd_stats, stats_options, 0, ARGUMENTS_ANY,
          COMPLETE_RUNNING, 0 },
        { "stop|container stop", "[OPTIONS] CONTAINER [CONTAINER...]",
          "Stop containers: ask first, kill after a while", cmd_stop, stop_options, 1,
          ARGUMENTS_ANY, COMPLETE_RUNNING, 0 },
        { "tag|image tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Give an image a further name",
          cmd_tag, NULL, 2, 2, COMPLETE_IMAGE, 0 },
        { "top|container top", "CONTAINER [ps OPTIONS]", "List the processes of a container",
          cmd_top, NULL, 1, ARGUMENTS_ANY, COMPLETE_RUNNING, COMMAND_STOP_EARLY },
        { "unpause|container unpause", "CONTAINER [CONTAINER...]", "Let frozen containers go on",
          cmd_unpause, NULL, 1, ARGUMENTS_ANY, COMPLETE_RUNNING, 0 },
        { "update|container update", "[OPTIONS] CONTAINER [CONTAINER...]",
          "Change limits of containers", cmd_update, update_options, 1, ARGUMENTS_ANY,
          COMPLETE_CONTAINER, 0 },
        { "wait|container wait", "CONTAINER [CONTAINER...]",
          "Wait until containers have stopped, print their exit statuses", cmd_wait, NULL, 1,
          ARGUMENTS_ANY, COMPLETE_CONTAINER, 0 },

        { "container inspect", "[OPTIONS] CONTAINER [CONTAINER...]",
          "Show everything about containers", cmd_container_inspect, container_inspect_options, 1,
          ARGUMENTS_ANY, COMPLETE_CONTAINER, 0 },
        { "container prune", "[OPTIONS]", "Remove all containers that do not run",
          cmd_container_prune, prune_options, 0, 0, COMPLETE_NOTHING, 0 },
        { "image inspect", "[OPTIONS] IMAGE [IMAGE...]", "Show everything about images",
          cmd_image_inspect, image_inspect_options, 1, ARGUMENTS_ANY, COMPLETE_IMAGE, 0 },
        { "image prune", "[OPTIONS]", "Remove images that nothing uses", cmd_image_prune,
          image_prune_options, 0, 0, COMPLETE_NOTHING, 0 },
        { "image verify", "[OPTIONS] [IMAGE...]",
          "Check stored images against their digests (all, where none is named)", cmd_image_verify,
          image_verify_options, 0, ARGUMENTS_ANY, COMPLETE_IMAGE, 0 },
        { "system df", "[OPTIONS]", "Show what takes space on disk", cmd_system_df,
          system_df_options, 0, 0, COMPLETE_NOTHING, 0 },
        { "system prune", "[OPTIONS]", "Remove what nothing uses", cmd_system_prune,
          system_prune_options, 0, 0, COMPLETE_NOTHING, 0 },
        { "volume create", "[OPTIONS] [VOLUME]", "Create a volume", cmd_volume_create,
          volume_create_options, 0, 1, COMPLETE_NOTHING, 0 },
        { "volume inspect", "[OPTIONS] VOLUME [VOLUME...]", "Show everything about volumes",
          cmd_volume_inspect, volume_inspect_options, 1, ARGUMENTS_ANY, COMPLETE_VOLUME, 0 },
        { "volume ls|volume list", "[OPTIONS]", "List volumes", cmd_volume_ls, volume_ls_options, 0,
          0, COMPLETE_NOTHING, 0 },
        { "volume prune", "[OPTIONS]", "Remove volumes that nothing uses", cmd_volume_prune,
          volume_prune_options, 0, 0, COMPLETE_NOTHING, 0 },
        { "volume rm|volume remove", "[OPTIONS] VOLUME [VOLUME...]", "Remove volumes",
          cmd_volume_rm, volume_rm_options, 1, ARGUMENTS_ANY, COMPLETE_VOLUME, 0 },
        { "completion", "bash|zsh|fish", "Print a script that completes commands in a shell",
          cmd_completion, completion_options, 1, 1, COMPLETE_WORDS, 0 },
        { "__complete", "[WORD...]", "Print what may be typed next", cmd_complete, NULL, 0,
          ARGUMENTS_ANY, COMPLETE_NOTHING, COMMAND_HIDDEN | COMMAND_RAW },
        { "__man", "", "Print the manual page", cmd_generate_man, NULL, 0, 0, COMPLETE_NOTHING,
          COMMAND_HIDDEN },
};
const size_t commands_length = ELEMENTS(commands);

const struct command_group command_groups[] = {
        { "container", "Manage containers" },
        { "image", "Manage images" },
        { "system", "Manage the daemon" },
        { "volume", "Manage volumes" },
};
const size_t command_groups_length = ELEMENTS(command_groups);

const struct option global_options[] = {
        { .name = "config",
          .kind = OPTION_TEXT,
          .help = "Directory of the client's config.json (default ~/.isle)",
          .completion = COMPLETE_DIRECTORY },
        { .name = "host",
          .letter = 'H',
          .kind = OPTION_TEXT,
          .help = "Where the daemon listens: unix:///PATH or tcp://HOST:PORT (default $ISLE_HOST, "
                  "$DOCKER_HOST, unix:///run/isle/docker.sock)" },
        { .name = "version",
          .letter = 'v',
          .kind = OPTION_BOOL,
          .help = "Print the version and quit" },
        { 0 },
};

bool command_next_path(const struct command *command, const char **cursor, const char **ret,
                       size_t *ret_length)
{
        const char *at = *cursor ? *cursor : command->paths;
        if (!*at)
                return false;
        *ret = at;
        *ret_length = strcspn(at, "|");
        at += *ret_length;
        *cursor = *at ? at + 1 : at;
        return true;
}

/* How many of the words the path takes: 0 where they differ. */
static int match_path(const char *path, size_t length, int argc, char **argv)
{
        int words = 0;
        while (length > 0) {
                size_t word = strcspn(path, " |");
                if (words >= argc || strlen(argv[words]) != word ||
                    memcmp(argv[words], path, word) != 0)
                        return 0;
                words++;
                path += word;
                length -= word;
                if (length) {
                        path++;
                        length--;
                }
        }
        return words;
}

const struct command *command_find(int argc, char **argv, int *ret_words, const char **ret_path,
                                   size_t *ret_length)
{
        for (size_t i = 0; i < commands_length; i++) {
                const char *cursor = NULL, *path;
                size_t length;
                while (command_next_path(&commands[i], &cursor, &path, &length)) {
                        int words = match_path(path, length, argc, argv);
                        if (!words)
                                continue;
                        *ret_words = words;
                        *ret_path = path;
                        *ret_length = length;
                        return &commands[i];
                }
        }
        return NULL;
}

const struct command_group *command_group_find(const char *name)
{
        for (size_t i = 0; i < command_groups_length; i++)
                if (streq(command_groups[i].name, name))
                        return &command_groups[i];
        return NULL;
}

const char *command_name_in(const struct command *command, const char *group, size_t *ret_length)
{
        const char *cursor = NULL, *path;
        size_t length, prefix = strlen(group);
        while (command_next_path(command, &cursor, &path, &length)) {
                if (!prefix && !memchr(path, ' ', length)) {
                        *ret_length = length;
                        return path;
                }
                if (prefix && length > prefix && memcmp(path, group, prefix) == 0 &&
                    path[prefix] == ' ') {
                        *ret_length = length - prefix - 1;
                        return path + prefix + 1;
                }
        }
        return NULL;
}
