/* Runs the programs of a list one after the other, in the guest as on the host:
 *
 *   suite LIST RESULTS
 *
 * A line of LIST is "NAME SECONDS PROGRAM [ARGUMENT...]". Each program begins in an empty
 * directory of /tmp that is removed only with /tmp, has no input, and writes to RESULTS/NAME;
 * RESULTS/index gets "NAME exit N", "NAME signal N" or "NAME timeout". What a program leaves
 * running in its session is ended with it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORDS 16

static int split(char *line, char **words)
{
        int n = 0;
        for (char *word = strtok(line, " \n"); word && n < WORDS; word = strtok(NULL, " \n"))
                words[n++] = word;
        words[n] = NULL;
        return n;
}

static void become(char **words, const char *results)
{
        static char *const environment[] = { "PATH=/bin", "HOME=/tmp", "LC_ALL=C", NULL };
        char path[512], directory[512];
        snprintf(path, sizeof(path), "%s/%s", results, words[0]);
        snprintf(directory, sizeof(directory), "/tmp/%s", words[0]);
        int in = open("/dev/null", O_RDONLY);
        int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
        setsid();
        if (in < 0 || out < 0 || mkdir(directory, 0755) < 0 || chdir(directory) < 0)
                _exit(126);
        dup2(in, STDIN_FILENO);
        dup2(out, STDOUT_FILENO);
        dup2(out, STDERR_FILENO);
        close(in);
        close(out);
        execve(words[2], words + 2, environment);
        printf("%s: %s\n", words[2], strerror(errno));
        fflush(stdout);
        _exit(127);
}

/* Returns false when it took longer than it may. */
static int wait_for(pid_t pid, int limit_s, int *ret_status)
{
        sigset_t child;
        struct timespec now, end;
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        clock_gettime(CLOCK_MONOTONIC, &end);
        end.tv_sec += limit_s;
        while (waitpid(pid, ret_status, WNOHANG) != pid) {
                clock_gettime(CLOCK_MONOTONIC, &now);
                struct timespec left = { end.tv_sec - now.tv_sec, end.tv_nsec - now.tv_nsec };
                if (left.tv_nsec < 0) {
                        left.tv_sec--;
                        left.tv_nsec += 1000000000;
                }
                if (left.tv_sec < 0)
                        return 0;
                (void)sigtimedwait(&child, NULL, &left);
        }
        return 1;
}

static void run(char **words, const char *results, FILE *index)
{
        int status;
        pid_t pid = fork();
        if (pid == 0)
                become(words, results);
        if (pid < 0)
                exit(1);
        int ended = wait_for(pid, atoi(words[1]), &status);
        kill(-pid, SIGKILL);
        if (!ended)
                waitpid(pid, &status, 0);
        while (waitpid(-1, NULL, WNOHANG) > 0)
                ;
        if (!ended)
                fprintf(index, "%s timeout\n", words[0]);
        else if (WIFSIGNALED(status))
                fprintf(index, "%s signal %d\n", words[0], WTERMSIG(status));
        else
                fprintf(index, "%s exit %d\n", words[0], WEXITSTATUS(status));
        fflush(index);
}

int main(int argc, char **argv)
{
        static char line[4096], path[512];
        char *words[WORDS + 1];
        sigset_t child;
        if (argc != 3)
                return 2;
        FILE *list = fopen(argv[1], "re");
        snprintf(path, sizeof(path), "%s/index", argv[2]);
        FILE *index = fopen(path, "we");
        if (!list || !index) {
                perror(argv[1]);
                return 1;
        }
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        sigprocmask(SIG_BLOCK, &child, NULL);
        while (fgets(line, sizeof(line), list))
                if (split(line, words) >= 3)
                        run(words, argv[2], index);
        return ferror(index) != 0;
}
